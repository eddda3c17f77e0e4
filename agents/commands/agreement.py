"""`textenv agreement`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What to compare.

    Attributes:
        rankings: Files of rankings of the same answers, such as those of textenv preferences. Each
            is a labeller of its own, by the file's name, but for rankings that say who made them.
        json: Write all figures to this file.
        seed: Start of the bootstrap.
    """

    rankings: list[Path] = setting(metavar="FILE...", positional=True)
    json: Path | None = setting(None, metavar="FILE")
    seed: int = setting(0, minimum=0)


@dataclass(frozen=True)
class AgreementSettings:
    """Measure how far labellers agree: people, judges, programs.

    Each two of them: the share of pairs of answers that they order alike, and Cohen's kappa. All
    together: Fleiss' kappa and Krippendorff's alpha. And what each of them tends to: ties, longer
    answers, the answer that was shown first. Intervals are 95%, over prompts.
    """

    compared: Compared

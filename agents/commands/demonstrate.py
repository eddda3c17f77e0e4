"""`textenv demonstrate`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to answer.

    Attributes:
        prompts: Questions: a .txt file (one a line), a .jsonl file (records with a 'prompt', a text
            or messages), or file.py:function.
        out: A .jsonl file for your answers, which textenv sft reads. Questions that it holds are
            not asked again: run the same command to go on.
        limit: Questions at most; if not given, all of a file, or 256 of a function.
        seed: Seed of the questions of a function.
    """

    prompts: str = setting(metavar="FILE")
    out: Path = setting(metavar="FILE")
    limit: int | None = setting(None, minimum=1)
    seed: int = setting(0, minimum=0)


@dataclass(frozen=True)
class DemonstrateSettings:
    """Write answers yourself, from which a policy is fine-tuned.

    Each answer is kept before the next question is shown.
    """

    task: Task

"""`textenv preferences`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import (
    MODEL_AS_JUDGE,
    OWN_FUNCTION,
    FramedRecords,
    Judging,
    Machine,
    Prompted,
    Published,
    Sampling,
)

LABELLERS = ("vader", "snownlp", "terminal")
"""Those of `agents.jobs.preferences`, which is not imported here: it needs torch."""


@dataclass(frozen=True, kw_only=True)
class Task(Published, FramedRecords):
    """What to rank.

    Attributes:
        policy: Who answers: a folder written by policy.save, or a model of Hugging Face, by its
            folder or its name on the hub (owner/name).
        prompts: Prompts: a .txt file (one a line), a .jsonl, .json, .csv, .tsv or .parquet file,
            perhaps compressed (records with a 'prompt' or a conversation), or file.py:function.
        labeller: Who ranks the answers. vader (English) and snownlp (Chinese) prefer what sounds
            friendly; terminal asks you; judge:... asks a language model which of two answers is
            better, a policy or one behind an OpenAI-compatible server; a function is one of a
            prompt and a list of answers to a list of scores.
        out: A .jsonl file for the rankings. Prompts that it holds already are skipped: run the same
            command again to resume.
        limit: Prompts at most; if not given, all of a file, or 256 of a function.
    """

    policy: str = setting(metavar="FOLDER")
    prompts: str = setting(metavar="FILE")
    labeller: str = setting(
        metavar="NAME", names=LABELLERS, others={**MODEL_AS_JUDGE, **OWN_FUNCTION}
    )
    out: Path = setting(metavar="FILE")
    limit: int | None = setting(None, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Answers(Prompted, Sampling):
    """How to answer.

    Attributes:
        answers_per_prompt: Answers that are ranked against each other.
        temperature: Logits are divided by it; more gives answers that differ more, from which more
            can be learned.
    """

    answers_per_prompt: int = setting(4, minimum=2)
    temperature: float = setting(1.0, minimum=0)


@dataclass(frozen=True)
class PreferencesSettings:
    """Sample several answers to each prompt and have them ranked.

    The file is what textenv reward-model and DPO learn from.
    """

    task: Task
    answers: Answers
    judging: Judging
    machine: Machine

"""`textenv recipe`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import Device, Saved
from agents.optimisation.settings import PrecisionName


@dataclass(frozen=True)
class Runs:
    """What to run.

    Attributes:
        task: What is made: speeches completes openings of sentences of real text, and is judged by
            sentiment; assistant answers questions in dialogues of a small world made by programs,
            and is judged by what is right.
        language: Language of the texts: en for English (speeches, or the assistant's world), zh for
            Chinese (reviews, or the same world).
        size: Size of the network: small, medium or large. May be given several times.
        seed: Start of everything random. May be given several times.
        budget: Times as much data and training as by default.
        out: A folder for each size and seed is made in this one.
    """

    task: Literal["speeches", "assistant"] = "speeches"
    language: Literal["en", "zh"] = "en"
    size: list[Literal["small", "medium", "large"]] = setting(["medium"])
    seed: list[int] = setting([0], minimum=0)
    budget: float = setting(1.0, minimum=0.01)
    out: Path = setting(Path("runs/recipe"), metavar="FOLDER")


@dataclass(frozen=True)
class RecipeMachine(Device):
    """Where and how to compute.

    Attributes:
        precision: Number format of the matrix products of training. bfloat16 is at least twice as
            fast on processors and GPUs made for it, and rounds more. If not given, speeches takes
            float32, and assistant bfloat16 where that is faster.
    """

    precision: PrecisionName | None = None


@dataclass(frozen=True)
class RecipeSettings:
    """The recipe of ChatGPT, from raw text to an aligned model.

    A vocabulary, pretraining, supervised fine-tuning, a reward model from ranked answers, DPO, PPO
    with and without a pretraining term, best-of-n, and all of them compared on held-out prompts;
    for the assistant feedback by itself and online feedback, too. Six to eight minutes on two
    processor cores. Each stage is made once: run the same command again to
    resume a run that was stopped. Ends with tables and report.html.
    """

    runs: Runs
    saving: Saved
    machine: RecipeMachine

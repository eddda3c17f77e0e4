"""`textenv dpo`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import FramedRecords, Machines, Saved, Trained


@dataclass(frozen=True, kw_only=True)
class Task(Trained, FramedRecords):
    """What to learn.

    Attributes:
        preferences: Rankings or pairs, as for textenv reward-model. May be given several times.
        held_out: Share of the prompts that are not learned but measured on.
    """

    preferences: list[Path] = setting(metavar="FILE")
    held_out: float = setting(0.1, minimum=0.001, maximum=0.999)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to learn.

    Attributes:
        loss: Loss of the pairs: dpo, or ipo, which stops at a margin.
        beta: Strength of the leash to the first policy, per nat; smaller lets the policy move
            further.
        epochs: Passes over the rankings.
        batch_size: Prompts of an optimiser step.
        learning_rate: Step size at the start; it falls linearly to a tenth.
        micro_batch_tokens: Send at most this many tokens, prompts included, through the network at
            once; this saves memory for one more forward pass.
    """

    loss: Literal["dpo", "ipo"] = "dpo"
    beta: float = setting(0.1, above=0)
    epochs: int = setting(1, minimum=1)
    batch_size: int = setting(16, minimum=1)
    learning_rate: float = setting(1e-4, minimum=0)
    micro_batch_tokens: int | None = setting(None, minimum=1)


@dataclass(frozen=True)
class DPOSettings:
    """Train a policy on preferences between answers, without a reward model.

    It becomes likelier to give the better answer of each pair than the worse one, on a leash to
    what it began as, and is examined on prompts that are held out.
    """

    task: Task
    training: Training
    saving: Saved
    machine: Machines

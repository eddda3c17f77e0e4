"""`textenv reward-model`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import Fit, FramedRecords, Machines, Saved, Trained


@dataclass(frozen=True, kw_only=True)
class Task(Trained, FramedRecords):
    """What to learn.

    Attributes:
        policy: The policy that the model begins as: a folder written by policy.save, or a model of
            Hugging Face, by its folder or its name on the hub (owner/name).
        preferences: Rankings ('prompt', 'answers' and 'ranks') or pairs ('prompt', 'chosen' and
            'rejected', of texts or messages, or the dialogues of hh-rlhf) and other published
            forms: .jsonl, .json, .csv, .tsv or .parquet, perhaps with .gz, .bz2, .xz or .zst. May
            be given several times.
        reference: Demonstrations, in a form that textenv sft reads; their mean score becomes 0. The
            answers it learns from, if not given.
        held_out: Share of the prompts that are not learned but measured on.
        members: Models to train, each with a head and an order of its own; more than one make an
            ensemble, which pays less where its members disagree.
        remove_length: Take out of the scores what answers earn by their length alone.
        out: Folder to save the model in.
    """

    preferences: list[Path] = setting(metavar="FILE")
    reference: Path | None = setting(None, metavar="FILE")
    held_out: float = setting(0.1, minimum=0.001, maximum=0.999)
    members: int = setting(1, minimum=1)
    remove_length: bool = False


@dataclass(frozen=True, kw_only=True)
class Training(Fit):
    """How to learn.

    Attributes:
        loss: Loss of the scores of ranked answers: kwise (all pairs of a prompt together), pairwise
            or plackett-luce.
        epochs: Passes over the rankings.
        batch_size: Prompts of an optimiser step.
    """

    loss: Literal["kwise", "pairwise", "plackett-luce"] = "kwise"
    epochs: int = setting(1, minimum=1)
    batch_size: int = setting(16, minimum=1)
    learning_rate: float = setting(1e-3, minimum=0)
    weight_decay: float = setting(0.1, minimum=0)


@dataclass(frozen=True)
class RewardModelSettings:
    """Train a reward model on preferences between answers.

    It begins as the policy, usually the fine-tuned one, and is examined on prompts that are held
    out.
    """

    task: Task
    training: Training
    saving: Saved
    machine: Machines

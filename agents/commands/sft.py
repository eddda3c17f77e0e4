"""`textenv sft`: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.commands.options import setting
from agents.commands.shared import Fit, FramedRecords, Machines, Saved, Trained


@dataclass(frozen=True, kw_only=True)
class Task(Trained, FramedRecords):
    """What to learn.

    Attributes:
        policy: The policy to begin with: a folder written by policy.save, or a model of Hugging
            Face, by its folder or its name on the hub (owner/name).
        examples: Conversations ('messages', ShareGPT's 'conversations', 'instruction' and 'output',
            'question' and 'answer', the 'chosen' side of pairs) or texts ('prompt' and 'response',
            'input' and 'target'): .jsonl, .json, .csv, .tsv or .parquet, perhaps with .gz, .bz2,
            .xz or .zst. May be given several times.
        held_out: Share of the questions whose examples are not learned but measured on.
    """

    examples: list[Path] = setting(metavar="FILE")
    held_out: float = setting(0.1, minimum=0.0, maximum=0.9)


@dataclass(frozen=True, kw_only=True)
class Training(Fit):
    """How to learn.

    Attributes:
        epochs: Passes over the examples.
        batch_size: Examples of an optimiser step.
        whole: Learn the questions too, not the answers alone.
        lm_weight: Weight of GPT-1's auxiliary loss over question and answer.
    """

    epochs: int = setting(2, minimum=1)
    batch_size: int = setting(16, minimum=1)
    whole: bool = False
    lm_weight: float = setting(0.0, minimum=0)


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """Which epoch is kept.

    Attributes:
        choose_by: Keep the last epoch; or save and measure the policy after each, and keep the one
            with the lowest loss on held-out examples, or with the highest mean score that
            --reward-model gives to its answers to held-out questions.
        reward_model: The reward model; a folder written by textenv reward-model.
        choosing_questions: Held-out questions that are answered after each epoch.
        choosing_tokens: Longest answer to one of them, in tokens.
    """

    choose_by: Literal["last", "loss", "reward-model"] = "last"
    reward_model: Path | None = setting(None, metavar="FOLDER")
    choosing_questions: int = setting(64, minimum=1)
    choosing_tokens: int = setting(64, minimum=1)


@dataclass(frozen=True)
class SFTSettings:
    """Fine-tune a policy on examples of answers.

    Only answers are learned, each with the stop token behind it. All examples are checked before
    anything is trained.
    """

    task: Task
    training: Training
    choosing: Choosing
    saving: Saved
    machine: Machines

"""`textenv classifier`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import Fit, Machine, Saved, Trained


@dataclass(frozen=True, kw_only=True)
class Task(Trained):
    """What to learn.

    Attributes:
        policy: The policy that the classifier begins as, usually a pretrained one: a folder written
            by policy.save, or a model of Hugging Face, by its folder or its name on the hub
            (owner/name).
        texts: Labelled texts: records with a 'text' and a 'label', such as .jsonl. Labels are
            names, or fractions for a regression. May be given several times.
        held_out: Share of the texts that are not learned but measured on.
        out: Folder to save the classifier in.
    """

    texts: list[Path] = setting(metavar="FILE")
    held_out: float = setting(0.1, minimum=0.001, maximum=0.999)


@dataclass(frozen=True, kw_only=True)
class Training(Fit):
    """How to learn.

    Attributes:
        epochs: Passes over the texts.
        batch_size: Texts of an optimiser step.
        lm_weight: Weight of GPT-1's auxiliary loss, which predicts the texts' own tokens; 0 leaves
            it out.
    """

    epochs: int = setting(3, minimum=1)
    batch_size: int = setting(32, minimum=1)
    lm_weight: float = setting(0.5, minimum=0)
    learning_rate: float = setting(3e-4, minimum=0)
    weight_decay: float = setting(0.01, minimum=0)


@dataclass(frozen=True)
class ClassifierSettings:
    """Train a classifier of texts on a pretrained policy.

    A linear layer on the last token's state says which label a text has. The folder is a reward, a
    judge and a safety classifier for the other commands: --reward-model with --label, and
    --classifier.
    """

    task: Task
    training: Training
    saving: Saved
    machine: Machine

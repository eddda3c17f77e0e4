"""What the options of supervised training say, as arguments of the functions that train."""

from typing import Any

from agents.commands.shared import Fit
from agents.supervised import Constant, Cosine, LinearDecay
from agents.supervised.schedules import Schedule
from policies import Dropout
from textenv.errors import OptionError


def fit_arguments(training: Fit) -> dict[str, Any]:
    """Arguments of `Fitting` and of the functions that make one.

    Raises:
        OptionError: A length is given to a schedule that never falls.
    """
    return {
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "schedule": _schedule(training),
        "dropout": Dropout(
            training.residual_dropout, training.attention_dropout, training.embedding_dropout
        ),
    }


def _schedule(training: Fit) -> Schedule:
    if training.schedule == "constant":
        if training.decay_steps is not None:
            raise OptionError(
                f"--decay-steps {training.decay_steps}: a constant learning rate does not fall; "
                "leave it out, or take --schedule cosine or linear"
            )
        return Constant(training.warmup)
    if training.decay_steps is not None and training.warmup >= training.decay_steps:
        raise OptionError(
            f"--warmup {training.warmup:g} is not below --decay-steps {training.decay_steps}, in "
            "which the learning rate rises and falls"
        )
    made = Cosine if training.schedule == "cosine" else LinearDecay
    return made(training.warmup, training.lr_floor, training.decay_steps)

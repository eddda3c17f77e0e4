"""The settings of optimiser steps: each one field with its line of help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from agents.optimisation.bounds import bounded, check_fields

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")
PrecisionName: TypeAlias = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Computation:
    """How a network computes.

    Attributes:
        precision: Number format of the matrix products: bfloat16 is at least twice as fast on
            processors and GPUs made for it, and rounds more; float16 is for GPUs without bfloat16.
        seed: Seed of all random numbers; on a CPU the same seed gives the same run.

    Raises:
        ValueError: `precision` is not one of `PRECISIONS`.
        OptionError: A number is out of its bounds.
    """

    precision: PrecisionName = "float32"
    seed: int = bounded(0, minimum=0)

    def __post_init__(self) -> None:
        """Take a torch dtype for its name; refuse other names, and numbers out of bounds."""
        name = str(self.precision).removeprefix("torch.")
        if name not in PRECISIONS:
            raise ValueError(f"precision is {self.precision}; it must be one of {PRECISIONS}")
        object.__setattr__(self, "precision", name)
        check_fields(self)


@dataclass(frozen=True)
class Optimisation(Computation):
    """How optimiser steps are taken.

    float32 is the default, because updates in bfloat16 compute other log-probabilities than the
    sampling did. The difference is small in small networks, and 0.04 nats in one of 135M parameters
    (docs/benchmarks.md).

    Attributes:
        learning_rate: Size of an optimiser step; from Python also a function of the share of the
            training that is done, 0 to 1.
        temperature: Logits are divided by this, in sampling and in updates; larger makes the
            choices more random.
        max_grad_norm: A gradient with a larger norm than this is scaled down to it.
        micro_batch_tokens: Send at most this many tokens, prompts included, through the network at
            once; this saves memory for one more forward pass and leaves the gradients as they are.
        importance_cap: Compute the log-probabilities of a rollout anew before its updates, and
            weigh each token by the ratio of the new to the sampler's probability, at most this;
            for rollouts of older weights or of another precision. None takes the sampler's.
    """

    learning_rate: float | Callable[[float], float] = bounded(3e-4, minimum=0)
    temperature: float = bounded(1.0, above=0)
    max_grad_norm: float = bounded(1.0, above=0)
    micro_batch_tokens: int | None = bounded(None, minimum=1)
    importance_cap: float | None = bounded(None, above=0)

    def rate(self, done: float) -> float:
        """The learning rate once the share `done` of the training is behind us."""
        return self.learning_rate(done) if callable(self.learning_rate) else self.learning_rate


def falling(rate: float, done: float) -> float:
    """A learning rate that falls linearly from `rate` to a tenth of it.

    >>> from functools import partial
    >>> Optimisation(learning_rate=partial(falling, 1e-3)).rate(0.5)
    0.00055
    """
    return rate * (1 - 0.9 * done)


class OptimisationFields(TypedDict, total=False):
    """The fields of `Optimisation` as keyword arguments, for type checkers."""

    learning_rate: float | Callable[[float], float]
    temperature: float
    max_grad_norm: float
    micro_batch_tokens: int | None
    importance_cap: float | None
    precision: PrecisionName | torch.dtype
    seed: int

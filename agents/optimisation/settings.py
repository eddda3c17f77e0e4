"""The settings of optimiser steps: each one field with its line of help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Computation:
    """How a network computes.

    Attributes:
        precision: Number format of the matrix products. bfloat16 is at least twice as fast on
            processors and GPUs made for it, and rounds more; float16 is for GPUs without bfloat16.
        seed: Start of everything random; the same seed gives the same run.

    Raises:
        ValueError: `precision` is not one of `PRECISIONS`.
    """

    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Take a torch dtype for its name, and refuse other names."""
        name = str(self.precision).removeprefix("torch.")
        if name not in PRECISIONS:
            raise ValueError(f"precision is {self.precision}; it must be one of {PRECISIONS}")
        object.__setattr__(self, "precision", name)


@dataclass(frozen=True)
class Optimisation(Computation):
    """How optimiser steps are taken.

    In updates, products in bfloat16 make log-probabilities differ from those of the sampling:
    little in small networks, 0.04 nats in one of 135M parameters (docs/benchmarks.md). That is why
    float32 is the default.

    Attributes:
        learning_rate: Step size; from Python also a function of the share of the training that is
            done, 0 to 1.
        temperature: Logits are divided by it, when tokens are sampled and when they are learned
            from.
        max_grad_norm: Gradients are scaled down to this norm.
        micro_batch_tokens: At most this many tokens, prompts included, go through the network at
            once; fewer take less memory and one more forward pass. Gradients stay those of the
            whole minibatch.
    """

    learning_rate: float | Callable[[float], float] = 3e-4
    temperature: float = 1.0
    max_grad_norm: float = 1.0
    micro_batch_tokens: int | None = None

    def rate(self, done: float) -> float:
        """The learning rate once the share `done` of the training is behind us."""
        return self.learning_rate(done) if callable(self.learning_rate) else self.learning_rate


class OptimisationFields(TypedDict, total=False):
    """The fields of `Optimisation` as keyword arguments, for type checkers."""

    learning_rate: float | Callable[[float], float]
    temperature: float
    max_grad_norm: float
    micro_batch_tokens: int | None
    precision: Precision | torch.dtype
    seed: int

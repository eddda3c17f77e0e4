"""Dropout as a training step asks for it; nothing else ever drops.

Srivastava et al., "Dropout" (2014), at the places of GPT-1 and GPT-2. An update compares
log-probabilities with those of the rollout, a reference or another answer, so a policy computes the
same whether or not it is in `.train()`. Pretraining, fine-tuning and reward modelling compare
nothing: their steps drop within `dropping`, a context of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textenv.errors import UnsupportedModelError


@dataclass(frozen=True)
class Dropout:
    """Probabilities that a number becomes 0 in training; the others grow by 1 / (1 - p).

    Attributes:
        residual: Of what attention and MLP add to the residual stream.
        attention: Of the weights of attention.
        embedding: Of the sum of the embeddings.

    Raises:
        ValueError: One is not in [0, 1).
    """

    residual: float = 0.0
    attention: float = 0.0
    embedding: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability, and 1, with which nothing is learned."""
        for field in fields(self):
            rate = getattr(self, field.name)
            if not 0 <= rate < 1:
                raise ValueError(f"dropout {field.name} is {rate}; it must be 0 or more, below 1")

    @classmethod
    def everywhere(cls, rate: float) -> "Dropout":
        """The same rate at all three places, such as the 0.1 of GPT-1 and GPT-2."""
        return cls(rate, rate, rate)

    @property
    def any(self) -> bool:
        """Whether anything is dropped."""
        return any((self.residual, self.attention, self.embedding))


def dropped(x: Tensor, rate: float) -> Tensor:
    """`x` with numbers dropped; `x` itself at a rate of 0."""
    return F.dropout(x, rate) if rate else x


@contextmanager
def dropping(model: nn.Module, rates: Dropout, seed: int | Sequence[int]) -> Iterator[None]:
    """Within the context the policies in `model` drop numbers, forward and in the backward pass.

    At rates of 0 nothing at all is done. Torch's random state is set for the context and put back
    behind it, since no dropout of torch takes a generator.

    Args:
        model: A policy, or a module of policies such as a reward model.
        rates: What to drop.
        seed: Seed of what is dropped, one number or several.

    Raises:
        UnsupportedModelError: No policy is in it, or one has no dropout that can be asked for.
    """
    if not rates.any:
        yield
        return
    found = list(_outermost(model))
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no policy, and nothing in it knows dropout: ask for none"
        )
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    (number,) = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    with torch.random.fork_rng(sorted(d.index or 0 for d in devices)), ExitStack() as contexts:
        torch.manual_seed(int(number))
        for policy in found:
            contexts.enter_context(policy.dropping(rates))
        yield


def _outermost(module: Any) -> Iterator[Any]:
    """The policies in `module` that are in no other one."""
    if hasattr(module, "dropping"):
        yield module
    else:
        for child in module.children():
            yield from _outermost(child)

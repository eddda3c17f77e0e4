"""How the next token follows from the policy and from H, the model of a person's reward."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Selection: TypeAlias = Callable[[Tensor, Tensor, np.random.Generator], int]
"""From the policy's logits and H of each token, both (V,), to the chosen token."""


@dataclass(frozen=True)
class Greedy:
    """Take the token of the largest H among the likeliest ones, as TAMER does.

    Attributes:
        among: How many tokens the policy proposes; the person never has to teach it language.
    """

    among: int = 8

    def __call__(self, logits: Tensor, rewards: Tensor, generator: np.random.Generator) -> int:
        """The chosen token; of equal rewards the likelier one.

        Args:
            logits: The policy's, shape (V,); minus infinity at what may not be chosen.
            rewards: H of each token, shape (V,).
            generator: Not used.
        """
        likeliest = logits.topk(min(self.among, len(logits))).indices  # in falling order
        best = rewards[likeliest].masked_fill(logits[likeliest].isneginf(), -torch.inf)
        return int(likeliest[best.argmax()])


@dataclass(frozen=True)
class Biased:
    """Sample from the policy times exp(strength * H): action biasing (Knox and Stone, 2012).

    Attributes:
        strength: Nats for a reward of 1.
        temperature: The policy's logits are divided by it.
    """

    strength: float = 3.0
    temperature: float = 1.0

    def __call__(self, logits: Tensor, rewards: Tensor, generator: np.random.Generator) -> int:
        """The chosen token; see `Greedy`."""
        biased = (logits / self.temperature + self.strength * rewards).double()
        probabilities = biased.softmax(0).cpu().numpy()
        return int(generator.choice(len(probabilities), p=probabilities / probabilities.sum()))


BIASED = Biased()
"""The default of a session."""

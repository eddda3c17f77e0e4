"""What a policy gives back: one choice for every row, or what it says of many choices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Step(NamedTuple):
    """One choice for every row, as numpy arrays of shape (num_rows,).

    Attributes:
        actions: Chosen tokens, int64.
        logprobs: Their log-probabilities under the distribution that was sampled, float32.
        values: Estimated value of the observations, float32; zeros without a value head.
    """

    actions: NDArray[np.int64]
    logprobs: NDArray[np.float32]
    values: NDArray[np.float32]


class PolicyOutputs(NamedTuple):
    """What the policy says of every choice in a batch of sequences; zero where mask is False.

    Attributes:
        logprobs: Log-probability of each chosen token, shape (S, L).
        values: Value of the text before each chosen token, shape (S, L).
        entropies: Entropy of each choice in nats, shape (S, L).
    """

    logprobs: Tensor
    values: Tensor
    entropies: Tensor


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Flat values (mask.sum(),) at the True places of a zero tensor (S, L)."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)

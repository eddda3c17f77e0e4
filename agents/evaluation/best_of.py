"""Best of n: what comes of taking the answer that a reward model likes best of n.

It needs no training, and its distance from the policy is known, so it shows how far a reward model
can be trusted before PPO is run: Gao et al., "Scaling Laws for Reward Model Overoptimization"
(2022), arXiv:2210.10760.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def best_of_n(proxy: ArrayLike, measured: ArrayLike, n: int) -> float:
    """Mean of `measured` over the answers that `proxy` puts first among n, from N >= n answers.

        sum over i of measured_(i) C(i - 1, n - 1) / C(N, n)

    The answers are in rising order of `proxy`; the i-th is the best of those n-subsets whose other
    members all come before it. This is the mean over all subsets, so it has no bias and far less
    variance than drawing some (Nakano et al., "WebGPT", 2021, arXiv:2112.09332, appendix I; Gao et
    al. use it for all their curves). Answers that `proxy` scores alike take turns.

    >>> round(best_of_n([1.0, 2.0, 3.0], [10.0, 20.0, 30.0], n=2), 3)  # pairs: 20, 30, 30
    26.667

    Args:
        proxy: Scores that choose, shape (N,), of answers to one prompt.
        measured: What is averaged, shape (N,): the same scores, or those of a judge.
        n: Number of answers of which one is taken, 1 to N.

    Raises:
        ValueError: The shapes differ, or n is out of its range.
    """
    chosen, wanted = (np.asarray(x, dtype=np.float64) for x in (proxy, measured))
    if chosen.ndim != 1 or chosen.shape != wanted.shape or not 1 <= n <= len(chosen):
        raise ValueError(
            f"best of {n} of scores of shape {chosen.shape} and {wanted.shape}: they must be two "
            "flat lists of one length, which is at least n"
        )
    order = chosen.argsort(kind="stable")
    _, place, count = np.unique(chosen[order], return_inverse=True, return_counts=True)
    # The mean of those that tie stands for each of them, whatever order they were sorted in.
    wanted = (np.bincount(place, wanted[order]) / count)[place]
    return float(_weights(len(chosen), n) @ wanted)


def _weights(count: int, n: int) -> NDArray[np.float64]:
    """C(i - 1, n - 1) / C(count, n) for i from 1 to count; they sum to 1."""
    weights = np.zeros(count)
    weights[-1] = n / count
    # From the last one down: C(i - 2, n - 1) = C(i - 1, n - 1) (i - n) / (i - 1). No factorials.
    i = np.arange(count, n, -1)
    weights[n - 1 : -1] = (n / count * np.cumprod((i - n) / (i - 1)))[::-1]
    return weights


def best_of_n_kl(n: int) -> float:
    """KL(best of n || policy) in nats: log n - (n - 1) / n.

    Exact where no two answers score the same, an upper bound otherwise. Stiennon et al., "Learning
    to summarize from human feedback" (2020), arXiv:2009.01325, appendix G.3.

    >>> best_of_n_kl(1)
    0.0
    """
    return math.log(n) - (n - 1) / n

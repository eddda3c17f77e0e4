"""Measures of texts that need no judge: variety, repetition, and surprise at held-out text."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from agents.supervised.pretraining import next_token_loss
from policies import Policy

TOKENS_AT_ONCE = 4096
"""Tokens of held-out text in one pass: enough to be fast, few enough for any memory."""


def distinct_n(answers: Iterable[ArrayLike], n: int) -> float:
    """Different runs of n neighbouring tokens, as a share of all of them (Li et al., 2016).

    A policy that has collapsed to a few phrases comes close to 0. The share falls with the number
    of answers, so compare equal numbers of answers only. NaN if no answer has n tokens.

    >>> distinct_n([[1, 2, 1, 2], [3], [1, 2, 3]], 2)  # 12 21 12 | | 12 23
    0.6
    """
    runs = [run for answer in answers for run in _runs(answer, n)]
    return len(set(runs)) / len(runs) if runs else math.nan


def repetition(answers: Iterable[ArrayLike], n: int) -> float:
    """Runs of n tokens that occurred earlier in the same answer, as a share, averaged over answers.

    Welleck et al. (2020) call it seq-rep-n. It detects loops within an answer; `distinct_n` detects
    answers that resemble each other. Answers of fewer than n tokens are left out; NaN if all are.

    >>> repetition([[1, 1, 1], [1, 2, 3]], 2)
    0.25
    """
    runs = [list(_runs(answer, n)) for answer in answers]
    shares = [1 - len(set(some)) / len(some) for some in runs if some]
    return sum(shares) / len(shares) if shares else math.nan


def lengths(answers: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """Number of tokens of each answer, shape (n,), int64."""
    return np.array([np.size(np.asarray(answer)) for answer in answers], dtype=np.int64)


@torch.no_grad()
def perplexity(policy: Policy, stream: NDArray[np.integer], window: int | None = None) -> float:
    """Exponential of the mean cross-entropy per token on held-out text.

    The text is cut into windows, end to end. Every token but the first of the stream is predicted
    exactly once, from the tokens before it in its window. Compare perplexities only between
    policies with the same vocabulary, and with the same window.

    Args:
        policy: The policy that reads.
        stream: Token ids, shape (N,), any integer type.
        window: Tokens read at a time; the policy's context if None.

    Raises:
        ValueError: The stream has fewer than two tokens, or the window does not fit the policy.
    """
    window = policy.context if window is None else window
    if not 1 <= window <= policy.context:
        raise ValueError(f"window is {window}; the policy's context allows 1 to {policy.context}")
    predicted = len(stream) - 1
    if predicted < 1:
        raise ValueError(f"the stream has {len(stream)} tokens; it needs 2 or more")
    total = 0.0
    at_once = max(1, TOKENS_AT_ONCE // window) * window
    whole = predicted - predicted % window
    for begin in range(0, whole, at_once):
        end = min(begin + at_once, whole)
        rows = np.arange(begin, end, window)[:, None] + np.arange(window + 1)
        total += _summed_loss(policy, stream[rows])
    if whole < predicted:
        total += _summed_loss(policy, stream[None, whole:])
    return math.exp(total / predicted)


def _summed_loss(policy: Policy, windows: NDArray[np.integer]) -> float:
    """Summed cross-entropy of each window's tokens after the first, windows (B, T + 1)."""
    return next_token_loss(policy, windows.astype(np.int64)).item() * windows[:, 1:].size


def _runs(answer: ArrayLike, n: int) -> Iterable[tuple[int, ...]]:
    """All runs of n neighbouring tokens of one answer."""
    if n < 1:
        raise ValueError(f"n is {n}; it must be 1 or more")
    ids = np.asarray(answer).tolist()
    return zip(*(ids[shift:] for shift in range(n)), strict=False)

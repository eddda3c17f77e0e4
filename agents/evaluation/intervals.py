"""Means and shares with their confidence intervals.

Two policies are compared on the same prompts, prompt by prompt. What both have in common cancels,
so the interval of the difference is narrower than those of the two means. Intervals are percentiles
of the bootstrap (Efron, 1979), which assumes nothing about the distribution: scores of texts pile
up at a few values. Intervals cover the choice of prompts and the chance in sampling. They do not
cover the chance in training: another seed may give another policy.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWN_AT_ONCE = 100_000
"""Values drawn at once; all resamples together would fill the memory."""


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def plain(figures: Any) -> Any:
    """Figures as JSON holds them: intervals and dataclasses become objects, within lists too.

    >>> plain({"wins": [Interval(0.5, 0.25, 0.75)]})
    {'wins': [{'mean': 0.5, 'low': 0.25, 'high': 0.75}]}
    """
    if isinstance(figures, Interval):
        return figures._asdict()
    if is_dataclass(figures) and not isinstance(figures, type):
        figures = {field.name: getattr(figures, field.name) for field in fields(figures)}
    if isinstance(figures, Mapping):
        return {name: plain(value) for name, value in figures.items()}
    return [plain(value) for value in figures] if isinstance(figures, list | tuple) else figures


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of `values`, shape (n,), and its percentile bootstrap interval.

    For a paired comparison pass the differences. NaN stands for an answer without a score, and is
    left out.

    >>> print(bootstrap_interval([1.0, 1.0, 1.0]))
    1.000 [1.000, 1.000]

    Raises:
        ValueError: There are no values but NaN, or they are not a flat list.
    """
    x = _flat(values)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, DRAWN_AT_ONCE // len(x))
    for begin in range(0, resamples, at_once):
        some = means[begin : begin + at_once]
        some[:] = x[generator.integers(0, len(x), (len(some), len(x)))].mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(x.mean()), float(low), float(high))


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean of `values`, shape (n,), and its interval, skewness and long tails accounted for.

    For values most of which are near 0 while a few are large, as weighed scores are. With their
    mean m, standard deviation s and skewness g, Hall's transformation of W = (m - mu) / s,

        W + g W^2 / 3 + g^2 W^3 / 27 + g / (6 n)

    has hardly any skewness (Hall, "On the Removal of Skewness by Transformation", 1992). It is
    compared with Student's t, whose degrees of freedom are those of the sample variance of such
    values, 2 n / (kurtosis - 1) (Satterthwaite, 1946), at least 4. NaN is left out.

    >>> print(mean_interval([1.0, 1.0, 1.0]))
    1.000 [1.000, 1.000]

    Raises:
        ValueError: There are no values but NaN, or they are not a flat list.
    """
    x = _flat(values)
    n, mean = len(x), float(x.mean())
    if n == 1 or (x == x[0]).all():
        return Interval(mean, mean, mean)
    z = (x - mean) / x.std()
    skewness, kurtosis = float((z**3).mean()), float((z**4).mean())
    q = _student((1 + confidence) / 2, min(n - 1.0, 2 * n / max(kurtosis - 1, 1e-9))) / n**0.5
    bounds = []
    for side in (q, -q):
        w = side
        if abs(skewness) > 1e-6:  # the transformation is inverted
            inner = 1 + skewness * (side - skewness / (6 * n))
            w = float(3 / skewness * (np.cbrt(inner) - 1))
        bounds.append(mean - float(x.std(ddof=1)) * w)
    return Interval(mean, *bounds)


def _student(share: float, freedom: float) -> float:
    """A quantile of Student's t; Abramowitz and Stegun, 1964, 26.7.5, from 4 degrees up."""
    z, f = NormalDist().inv_cdf(share), max(freedom, 4.0)
    return (
        z
        + (z**3 + z) / (4 * f)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * f**3)
    )


def _flat(values: ArrayLike) -> NDArray[np.float64]:
    """The values that are numbers."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or np.isnan(x).all():
        raise ValueError(
            f"values must be a flat list of at least one number, got shape {x.shape}, "
            f"{np.isnan(x).sum()} of them NaN"
        )
    return x[~np.isnan(x)]


def win_rate(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Share of the prompts on which a scores higher than b; a tie counts as half a win.

    A and b differ by more than chance if 0.5 is outside the interval.

    Args:
        scores_a: Scores of a's answers, shape (n,), one for each prompt.
        scores_b: Scores of b's answers to the same prompts, shape (n,).
        confidence: Probability that the interval holds the true share, 0 to 1.
        resamples: Number of resamples of the prompts that the bootstrap draws.
        seed: Seed of the bootstrap.

    >>> print(win_rate([1, 1, 1], [0, 0, 0]))
    1.000 [1.000, 1.000]

    Raises:
        ValueError: The two are not flat lists of equal length, or a score is NaN, which would lose
            every comparison.
    """
    a, b = (np.asarray(scores, dtype=np.float64) for scores in (scores_a, scores_b))
    if a.shape != b.shape:
        raise ValueError(
            f"the scores have shapes {a.shape} and {b.shape}; they must be for the same prompts"
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a score is NaN: there is nothing to compare")
    wins = (a > b) + 0.5 * (a == b)
    return bootstrap_interval(wins, confidence=confidence, resamples=resamples, seed=seed)

"""Win rates as they would be if both answers had the same length.

Judges and reward models prefer longer answers. AlpacaEval 2 therefore fits a logistic regression in
which the difference of the lengths is a term of its own, and reads the win rate where it is 0
(Dubois et al., "Length-Controlled AlpacaEval", 2024, equation 2):

    p(a wins on prompt i) = sigmoid(theta + phi tanh(d_i / std(d))),   d_i = length a_i - length b_i
    win rate at equal length = sigmoid(theta)

Left out is its term for the difficulty of a prompt, which is estimated from many other models. A
tie counts as half a win. A small penalty keeps the parameters finite where one side always wins.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.evaluation.intervals import Interval

PENALTY = 1e-3
"""Weight of (theta^2 + phi^2) / 2 in the loss; a prompt weighs 1."""

STEPS = 50
"""Most steps of Newton's method; each resample needs five to ten."""


def length_controlled_win_rate(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    lengths_a: ArrayLike,
    lengths_b: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Share of the prompts on which a would win against b if their answers were equally long.

    Use it beside `win_rate`: if the two differ, length explains part of the wins. It extrapolates:
    where all of a's answers are longer, no prompt shows what equal lengths would do.

    Args:
        scores_a: Scores of a's answers, shape (n,), one for each prompt.
        scores_b: Scores of b's answers to the same prompts, shape (n,).
        lengths_a: Lengths of a's answers, such as characters, shape (n,).
        lengths_b: Lengths of b's answers, shape (n,).
        confidence: Probability that the interval holds the true share, 0 to 1.
        resamples: Resamples of the prompts; the regression is fitted to each.
        seed: Seed of the bootstrap.

    >>> scores, others, lengths = [1, 0, 1, 0], [0, 1, 0, 1], [5, 5, 5, 5]
    >>> round(length_controlled_win_rate(scores, others, lengths, lengths).mean, 3)
    0.5

    Raises:
        ValueError: The four are not flat lists of equal length, or a score is NaN.
    """
    a, b, long_a, long_b = (
        np.asarray(x, dtype=np.float64) for x in (scores_a, scores_b, lengths_a, lengths_b)
    )
    shapes = [x.shape for x in (a, b, long_a, long_b)]
    if len(set(shapes)) > 1 or a.ndim != 1 or not len(a):
        raise ValueError(
            f"scores and lengths have shapes {shapes}; they must be flat, for the same prompts"
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a score is NaN: there is nothing to compare")
    wins = (a > b) + 0.5 * (a == b)
    differences = long_a - long_b
    spread = differences.std()
    lengths = np.tanh(differences / spread) if spread else np.zeros_like(differences)
    counts = np.random.default_rng(seed).multinomial(len(a), [1 / len(a)] * len(a), resamples)
    weights = np.concatenate([np.ones((1, len(a))), counts])
    rates = _sigmoid(fit_logistic(lengths, wins, weights)[:, 0])
    low, high = np.quantile(rates[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(rates[0]), float(low), float(high))


def fit_logistic(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Intercept and slope of logistic regressions with weighted samples, by Newton's method.

    All resamples of a bootstrap are fitted side by side, which no library's regression does.

    Args:
        x: Shape (n,).
        y: Shares of successes, 0 to 1, shape (n,).
        weights: Weight of each sample in each regression, shape (r, n).

    Returns:
        Shape (r, 2).
    """
    design = np.stack([np.ones_like(x), x], axis=1)
    fitted = np.zeros((len(weights), 2))
    for _ in range(STEPS):
        p = _sigmoid(fitted @ design.T)
        gradient = (weights * (y - p)) @ design - PENALTY * fitted
        bent = weights * p * (1 - p)
        curvature = np.stack([bent @ (design * column[:, None]) for column in design.T], axis=1)
        curvature += PENALTY * np.eye(2)
        # A step is at most 1 long: from far away Newton's method may overshoot.
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1.0)
        fitted += step
        if np.abs(step).max() < 1e-9:
            break
    return fitted


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * x))

"""How much higher one policy scores than another, from answers of both to the same prompts.

Three estimates of E_b[r] - E_a[r]. Each gives one number for every prompt; their mean is unbiased,
and `mean_interval` of them is the interval over prompts. With independent answers the first is
drowned in the noise of two samples. What helps:

- `difference` of answers on common random numbers (`agents.evaluation.evaluate` gives such): the
  two are the same where the policies agree, and cancel.
- `balanced`: both policies say how likely both answers are. With the mixture m = (p_a + p_b) / 2
  and an answer's log ratio l = log p_b - log p_a,

      E_b[r] - E_a[r] = E_m[r (p_b - p_a) / m] = E_m[2 r tanh(l / 2)]

  so that an answer counts by how much more one policy likes it than the other. One answer of each
  policy is a sample of m, stratified. This is the balance heuristic of Veach and Guibas, "Optimally
  Combining Sampling Techniques for Monte Carlo Rendering", 1995.
- `fitted`: both, and never worse than either for many prompts. It is the one to use.

Tokens of a world, and whatever else the policies do not choose, cancel in l.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST = 10
"""With fewer prompts than this nothing is fitted: coefficients are 0."""
RIDGE = 1e-9
"""Keeps coefficients finite where what they belong to is the same for all prompts."""


@dataclass(frozen=True)
class Pairs:
    """Scores and log ratios of one answer of each policy to n prompts, or of m answers to each.

    All arrays have the shape (n,), or (n, m).

    Attributes:
        scores_a: Scores of a's answers; NaN without a score, which leaves the prompt out.
        scores_b: Scores of b's answers, on the same prompts.
        ratios_a: log p_b - log p_a of a's answers, nats an answer.
        ratios_b: log p_b - log p_a of b's answers.

    Raises:
        ValueError: The shapes differ.
    """

    scores_a: Floats
    scores_b: Floats
    ratios_a: Floats
    ratios_b: Floats

    def __post_init__(self) -> None:
        shapes = {name: array.shape for name, array in vars(self).items()}
        if len(set(shapes.values())) != 1:
            raise ValueError(f"the arrays must have one shape; they have {shapes}")


def difference(pairs: Pairs) -> Floats:
    """r_b - r_a of each prompt, shape (n,).

    Use it where ratios are not to be had: other vocabularies, greedy answers. With common random
    numbers it is exact where the policies say the same.
    """
    return _by_prompt(pairs.scores_b - pairs.scores_a)


def balanced(pairs: Pairs) -> Floats:
    """(r_a - c) tanh(l_a / 2) + (r_b - c) tanh(l_b / 2) of each prompt, shape (n,).

    Scores may be centred by any number, since E_m[tanh(l / 2)] = 0. The best one is a coefficient
    of regression. Each prompt's c is fitted to the other prompts, so nothing is biased.
    """
    weighed, weight = _weighed(pairs)
    return _adjusted(weighed, weight[:, None])


def fitted(pairs: Pairs) -> Floats:
    """r_b - r_a less what the ratios say was chance, shape (n,).

        r_b - r_a - beta_1 (t_a + t_b) - beta_2 (r_b - r_a - r_a t_a - r_b t_b),   t = tanh(l / 2)

    Both brackets have the mean 0, whatever the betas: they are control variates. beta = 0 gives
    `difference`, beta_2 = 1 gives `balanced`. Each prompt's betas are fitted by least squares to
    the other prompts, so nothing is biased.
    """
    plain, (weighed, weight) = difference(pairs), _weighed(pairs)
    return _adjusted(plain, np.stack([weight, plain - weighed], axis=1))


def _weighed(pairs: Pairs) -> tuple[Floats, Floats]:
    """The sums over both answers of r t and of t, shape (n,), with t = tanh(l / 2)."""
    t_a, t_b = np.tanh(pairs.ratios_a / 2), np.tanh(pairs.ratios_b / 2)
    return _by_prompt(pairs.scores_a * t_a + pairs.scores_b * t_b), _by_prompt(t_a + t_b)


def _by_prompt(values: Floats) -> Floats:
    """The mean of each prompt's values: prompts are drawn, answers only with them."""
    return values if values.ndim == 1 else values.mean(1)


def _adjusted(values: Floats, controls: Floats) -> Floats:
    """Values (n,) less the controls (n, k), times coefficients that the other rows say are best.

    Leaving out row i changes the least-squares coefficients by (X'X)^-1 x_i e_i / (1 - h_i), with
    its residual e_i and its leverage h_i.
    """
    known = ~np.isnan(values)
    y, c = values[known], controls[known]
    if len(y) < FEWEST:
        return values
    scale = np.sqrt((c**2).mean(0))
    c = c / np.where(scale > 0, scale, 1.0)
    x = np.column_stack([np.ones(len(y)), c])
    ridge = RIDGE * len(y) * np.diag([0.0] + [1.0] * c.shape[1])
    inverse = np.linalg.inv(x.T @ x + ridge)
    coefficients = inverse @ (x.T @ y)
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    without = (y - x @ coefficients) / (1.0 - leverage)
    coefficients = coefficients - (x @ inverse) * without[:, None]
    adjusted = np.full(len(values), np.nan)
    adjusted[known] = y - (c * coefficients[:, 1:]).sum(1)
    return adjusted

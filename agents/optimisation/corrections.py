"""What answers weigh that another policy sampled than the one that is trained.

They differ where the sampler rounds otherwise, is some updates old, or is another engine. With
pi the policy from which an update begins and q the one that sampled, a correction multiplies the
advantage of each token by a weight made of rho_t = pi(a_t) / q(a_t):

    loss = -mean over sequences of sum_t w_t A_t log pi(a_t)

The gradient is exact for w_t = the product of all rho of the answer, whose variance grows with its
length. Everything else trades bias for variance; docs/checking.md shows where each one ends.

    Learner(..., importance_cap=math.inf, annotate=Corrected(Masked(0.5, 5.0)))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from agents import losses
from agents.optimisation.bounds import bounded, check_fields
from agents.rollout import Rollout
from agents.shapes import check_aligned
from textenv.errors import OptionError, UnmetNeedError

Level: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Log-ratios (S, L), 0 outside the mask, and the mask, to the logs of what a token weighs."""


def by_token(log_ratios: Tensor, mask: Tensor) -> Tensor:
    """Each token by its own ratio, rho_t: small variance; how likely its text was is left out.

    Espeholt et al., "IMPALA" (2018), arXiv:1802.01561, section 4; Yao et al., "Your Efficient RL
    Framework Secretly Brings You Off-Policy RL Training" (2025), https://fengyao.notion.site.
    """
    return log_ratios


def by_sequence(log_ratios: Tensor, mask: Tensor) -> Tensor:
    """All tokens by the answer's ratio, the product of its rho: exact, with the largest variance.

    Precup, Sutton & Singh, "Eligibility Traces for Off-Policy Policy Evaluation" (2000).
    """
    return log_ratios.sum(1, keepdim=True).expand_as(log_ratios)


def by_geometric_mean(log_ratios: Tensor, mask: Tensor) -> Tensor:
    """All tokens by the geometric mean of the answer's rho: the same scale at every length.

    Zheng et al., "Group Sequence Policy Optimization" (2025), arXiv:2507.18071, equation 7.
    """
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    return (log_ratios.sum(1, keepdim=True) / lengths).expand_as(log_ratios)


class Correction(Protocol):
    """Anything with this method; the results have no gradient."""

    def weights(self, logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
        """What each token weighs, (S, L), 1 outside the mask, from three arrays (S, L)."""
        ...


@torch.no_grad()
def _log_weights(level: Level, logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
    check_aligned(mask, logprobs=logprobs, sampled_logprobs=sampled_logprobs)
    found = level(torch.where(mask, logprobs - sampled_logprobs, 0.0), mask)
    return torch.where(mask, found, 0.0)


@dataclass(frozen=True)
class Truncated:
    """Weights up to a cap: w_t = min(ratio, cap).

    By token it is the truncated importance sampling of Yao et al. (2025), and, with a clip around
    pi, the decoupled PPO ratio of Hilton, Cobbe & Schulman (2021), arXiv:2110.00641, equation 4:

        w_t min(ratio_t A_t, clip(ratio_t) A_t),    ratio_t = pi_new(a_t) / pi(a_t)

    Use it where few ratios are large: it keeps every answer. `math.inf` truncates nothing; from
    e^20 on ratios grow as a line (`losses.truncated_ratios`).

    Attributes:
        cap: The largest weight; smaller has less variance and more bias.
        level: Of what the ratio is: `by_token`, `by_sequence`, `by_geometric_mean`.
    """

    cap: float = bounded(2.0, above=0)
    level: Level = by_token

    def __post_init__(self) -> None:
        """Refuse a cap that is not above 0."""
        check_fields(self)

    def weights(self, logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
        """As in `Correction`."""
        found = _log_weights(self.level, logprobs, sampled_logprobs, mask)
        return losses.truncated_ratios(found, torch.zeros_like(found), mask, self.cap)


@dataclass(frozen=True)
class Masked:
    """Weights within two bounds, and 0 outside: w_t = ratio [low <= ratio <= high].

    By token and two-sided it is IcePop (Zhao et al., "Small Leak Can Sink a Great Ship", 2025,
    https://ringtech.notion.site/icepop), with 0.5 and 5; by sequence the masked importance sampling
    of Liu et al., "When Speed Kills Stability" (2025), https://yingru.notion.site. Use it where
    large ratios are mistakes of an engine rather than news: what it drops teaches nothing, and the
    gradient is that of what is left.

    Attributes:
        low: Smaller ratios weigh nothing.
        high: Larger ratios weigh nothing.
        level: Of what the ratio is: `by_token`, `by_sequence`, `by_geometric_mean`.
    """

    low: float = bounded(0.5, minimum=0)
    high: float = bounded(5.0, above=0)
    level: Level = by_token

    def __post_init__(self) -> None:
        """Refuse bounds that are negative, or between which there is no ratio."""
        check_fields(self)
        if self.low > self.high:
            raise OptionError(
                f"Masked: low is {self.low} and high is {self.high}, so every token would weigh "
                "nothing; low must not be above high"
            )

    def weights(self, logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
        """As in `Correction`."""
        ratios = Truncated(math.inf, self.level).weights(logprobs, sampled_logprobs, mask)
        inside = (ratios >= self.low) & (ratios <= self.high)
        return torch.where(inside | ~mask, ratios, 0.0)


@dataclass(frozen=True)
class Corrected:
    """A learner's `annotate` hook that weighs each rollout by a correction.

    The learner has to compute the present log-probabilities: give it `importance_cap=math.inf`.
    """

    correction: Correction

    def __call__(self, rollout: Rollout) -> Rollout:
        """The rollout with other `importance_weights`.

        Raises:
            UnmetNeedError: The sampler's log-probabilities are not beside the present ones.
        """
        if rollout.sampled_logprobs is None:
            raise UnmetNeedError(
                "a correction compares the sampler's log-probabilities with the present ones: give "
                "the learner importance_cap=math.inf too"
            )
        arrays = rollout.logprobs, rollout.sampled_logprobs, rollout.mask
        return replace(rollout, importance_weights=self.correction.weights(*arrays))

"""What a run says of each update."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.rollout import Rollout


@dataclass(frozen=True)
class Update:
    """What one rollout and the optimiser steps on it did.

    docs/metrics.md says what is normal for each number, and what a bad value looks like.

    Attributes:
        number: Updates so far, from 1.
        tokens: Chosen tokens so far.
        episodes: Episodes that ended so far.
        score: Mean score of the episodes that ended in this rollout: what the environment paid for
            them, before any KL penalty. NaN if none ended. Episodes without a score are left out.
        kl: KL(policy || reference) in nats per token, estimator k1; None without a reference.
        entropy: Mean entropy of the choices in nats.
        tokens_per_second: Chosen tokens by the seconds of the whole update, rollout included.
        metrics: What the algorithm reports, and the learner's own: `approx_kl`, `grad_norm`,
            `learning_rate`, `kl_coef`, `rollout_seconds`, `update_seconds`, `reference_seconds` if
            there is a reference and `explained_variance` if values are learned.
        score_std: Standard deviation of those scores; NaN if none ended.
        tokens_per_answer: Mean number of chosen tokens of those episodes; NaN if none ended.
        ended_by_budget: Share of them that the token budget ended; NaN if none ended, or if the
            environment tells no `finish_reason`.
        components: Mean of what each component of a weighted reward paid for them, unweighted, by
            its name; empty for a reward that is not a sum.
        scores: The scores of those episodes, shape (E,), float32, for a histogram.
        rollout: What was learned from; None in the list that `Learner.learn` returns, which would
            otherwise hold every rollout of the run in memory.
    """

    number: int
    tokens: int
    episodes: int
    score: float
    kl: float | None
    entropy: float
    tokens_per_second: float
    metrics: dict[str, float]
    score_std: float = float("nan")
    tokens_per_answer: float = float("nan")
    ended_by_budget: float = float("nan")
    components: Mapping[str, float] = field(default_factory=dict)
    scores: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    rollout: Rollout | None = field(default=None, repr=False)

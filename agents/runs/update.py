"""What a run says of each update."""

from dataclasses import dataclass, field

from agents.rollout import Rollout


@dataclass(frozen=True)
class Update:
    """What one rollout and the optimiser steps on it did.

    Attributes:
        number: Updates so far, from 1.
        tokens: Chosen tokens so far.
        episodes: Episodes that ended so far.
        score: Mean score of the episodes that ended in this rollout: what the environment paid for
            them, before any KL penalty. NaN if none ended.
        kl: KL(policy || reference) in nats per token, estimator k1; NaN without a reference.
        entropy: Mean entropy of the choices in nats.
        tokens_per_second: Of the whole update, rollout included.
        metrics: What the algorithm reports, and the learner's own: `approx_kl`, `grad_norm`,
            `explained_variance`, `learning_rate`, `kl_coef`, `rollout_seconds`.
        rollout: What was learned from; None in the list that `Learner.learn` returns, which would
            otherwise hold every rollout of the run in memory.
    """

    number: int
    tokens: int
    episodes: int
    score: float
    kl: float
    entropy: float
    tokens_per_second: float
    metrics: dict[str, float]
    rollout: Rollout | None = field(default=None, repr=False)

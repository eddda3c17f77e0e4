"""What "as one process does" means."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Differences(NamedTuple):
    """How much what ranks measured differs from what one process did; the largest of all ranks.

    Attributes:
        flipped: Tokens, and other whole numbers of rollouts.
        trained: Tokens trained by all ranks together, less those of one process.
        of: Tokens that one process trained.
        weights: Norm of the difference of all weights, by that of the weights.
        logprobs: Log-probabilities of held-out texts, the largest.
        metrics: The largest difference of a metric, by the metric or by 1e-2 if that is larger.
    """

    flipped: int
    trained: int
    of: int
    weights: float
    logprobs: float
    metrics: float


def differences(ranks: Sequence[dict[str, Any]], expected: dict[str, Any]) -> Differences:
    flipped = max(
        sum(
            int((mine != its).sum()) if mine.shape == its.shape else mine.numel()
            for rollout, other in zip(rank["rollouts"], expected["rollouts"], strict=True)
            for mine, its in zip(rollout, other, strict=True)
        )
        if "rollouts" in expected
        else 0
        for rank in ranks
    )
    one = expected.get("trained_tokens", 0)
    size = expected["weights"].norm().item()
    return Differences(
        flipped,
        sum(rank.get("trained_tokens", 0) for rank in ranks) - one,
        one,
        max((rank["weights"] - expected["weights"]).norm().item() / size for rank in ranks),
        max(float((rank["logprobs"] - expected["logprobs"]).abs().max()) for rank in ranks),
        max(
            metrics_apart(mine, its)
            for rank in ranks
            for mine, its in zip(rank["metrics"], expected["metrics"], strict=True)
        ),
    )


def same_training(ranks, expected):
    found = differences(ranks, expected)
    assert found.flipped == found.trained == 0, found
    assert found.of or "trained_tokens" not in expected
    assert len(expected["logprobs"]) == 256
    assert found.weights <= 1e-5 and found.logprobs <= 1e-4, found
    assert found.metrics <= 5e-5, found
    assert all(torch.equal(rank["weights"], ranks[0]["weights"]) for rank in ranks)
    return found


def gradient_apart(found, expected):
    """The norm of the difference of two gradients, by that of the gradient."""
    size = expected["gradient"].norm()
    assert size > 0
    return float((found["gradient"] - expected["gradient"]).norm() / size)


def same_gradient(found, expected):
    assert gradient_apart(found, expected) <= 1e-10
    assert metrics_apart(found["metrics"], expected["metrics"]) <= 1e-6


def metrics_apart(mine: dict[str, float], its: dict[str, float]) -> float:
    """The largest difference, by the metric or by 1e-2: those near 0 are differences themselves."""
    assert mine.keys() == its.keys()
    apart = [0.0]
    for name, value in its.items():
        if value is None or value != value:
            assert mine[name] is value or mine[name] != mine[name], name
        elif isinstance(value, int):
            assert mine[name] == value, name
        else:
            apart.append(abs(mine[name] - value) / max(abs(value), 1e-2))
    return max(apart)

"""What "as one process does" means."""

import pytest
import torch


def same_gradient(found, expected):
    size = expected["gradient"].norm()
    assert size > 0
    assert (found["gradient"] - expected["gradient"]).norm() <= 1e-10 * size
    same_metrics(found["metrics"], expected["metrics"])


def same_training(ranks, expected, spare=False):
    for rank in ranks:
        flipped = 0
        for rollout, other in zip(
            rank.get("rollouts", ()), expected.get("rollouts", ()), strict=True
        ):
            for mine, its in zip(rollout, other, strict=True):
                assert mine.shape == its.shape
                flipped += int((mine != its).sum())
        assert flipped == 0
        for mine, its in zip(rank["metrics"], expected["metrics"], strict=True):
            same_metrics(mine, its)
        size = expected["weights"].norm()
        assert (rank["weights"] - expected["weights"]).norm() <= 1e-5 * size
        torch.testing.assert_close(rank["logprobs"], expected["logprobs"], atol=1e-4, rtol=0)
        assert torch.equal(rank["weights"], ranks[0]["weights"])
    # None twice, none dropped. Spare passes, of ranks that have fewer parts, read rows once more
    # and count them, without effect on the weights compared above.
    if "trained_tokens" in expected and not spare:
        assert sum(rank["trained_tokens"] for rank in ranks) == expected["trained_tokens"]


def same_metrics(mine, its):
    assert mine.keys() == its.keys()
    for name, value in its.items():
        assert mine[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name

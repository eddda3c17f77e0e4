"""Several processes compute what one does: rollouts, gradients, metrics and weights."""

import pytest
import torch
import trainings
from processes import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*reading from this file")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    torch.set_num_threads(1)
    return trainings.run_all(str(tmp_path_factory.mktemp("one")))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return in_processes(2, trainings.run_all, str(tmp_path_factory.mktemp("two")))


@pytest.mark.parametrize("name", trainings.FIRST)
def test_the_first_gradient_of_every_algorithm_is_that_of_one_process(name, one, two):
    for rank in two:
        same_gradient(rank[name], one[name])


@pytest.mark.parametrize("name", trainings.LONG)
def test_two_processes_train_as_one_does(name, one, two):
    same_training([rank[name] for rank in two], one[name])


def test_a_training_that_was_saved_goes_on_bit_for_bit(two):
    for rank in two:
        assert torch.equal(rank[trainings.RESUMED]["weights"], rank["grpo"]["weights"])
        assert rank[trainings.RESUMED]["metrics"] == rank["grpo"]["metrics"]


@pytest.mark.slow
def test_four_processes_train_as_one_does(one, tmp_path):
    four = in_processes(4, trainings.run_all, str(tmp_path))
    for name in trainings.FIRST:
        for rank in four:
            same_gradient(rank[name], one[name])
    for name in trainings.LONG:
        same_training([rank[name] for rank in four], one[name])


def same_gradient(found, expected):
    size = expected["gradient"].norm()
    assert size > 0
    assert (found["gradient"] - expected["gradient"]).norm() <= 1e-10 * size
    same_metrics(found["metrics"], expected["metrics"])


def same_training(ranks, expected):
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
    if "trained_tokens" in expected:  # none twice, none dropped
        assert sum(rank["trained_tokens"] for rank in ranks) == expected["trained_tokens"]


def same_metrics(mine, its):
    assert mine.keys() == its.keys()
    for name, value in its.items():
        assert mine[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name

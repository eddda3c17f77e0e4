"""Several processes compute what one does: rollouts, gradients, metrics and weights."""

import pytest
import torch
import trainings
from comparing import gradient_apart, same_gradient, same_training
from processes import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*reading from this file")


@pytest.mark.parametrize("name", trainings.FIRST)
def test_the_first_gradient_of_every_algorithm_is_that_of_one_process(name, one, two):
    for rank in two:
        same_gradient(rank["whole"][name], one[name])


@pytest.mark.parametrize("name", trainings.LONG)
def test_two_processes_train_as_one_does(name, one, two):
    same_training([rank["whole"][name] for rank in two], one[name])


def test_a_training_that_was_saved_goes_on_bit_for_bit(two):
    for rank in (rank["whole"] for rank in two):
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


@pytest.mark.full
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("sharded", [False, True])
def test_processes_share_32_rows_as_one_has_them(count, sharded, one_with_32_rows):
    ranks = in_processes(count, trainings.run_wanted, 32, sharded)
    for name, expected in one_with_32_rows.items():
        found = [rank[name] for rank in ranks]
        if name in trainings.FIRST:
            for rank in found:
                same_gradient(rank, expected)
            print(count, sharded, name, max(gradient_apart(rank, expected) for rank in found))
        else:
            print(count, sharded, name, same_training(found, expected))

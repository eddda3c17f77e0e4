"""Networks that are divided among processes train as whole ones do, and so do their checkpoints."""

import pytest
import torch
import trainings
from comparing import same_gradient, same_training
from processes import in_processes

from agents.distribution.gathering import gathered
from agents.distribution.sharded import shard
from textenv.errors import UnmetNeedError


@pytest.mark.parametrize("name", trainings.SHARDED)
def test_a_sharded_network_trains_as_a_whole_one(name, one, two):
    ranks = [rank["sharded"][name] for rank in two]
    if name in trainings.FIRST:
        for rank in ranks:
            same_gradient(rank, one[name])
    else:
        same_training(ranks, one[name])


def test_a_sharded_training_that_was_saved_goes_on_bit_for_bit(two):
    for rank in (rank["sharded"] for rank in two):
        assert torch.equal(rank[trainings.RESUMED]["weights"], rank["grpo"]["weights"])


def test_a_checkpoint_of_two_ranks_goes_on_in_one_process(two, folder):
    same_losses(trainings.go_on_from(folder), two[0]["sharded"]["grpo"]["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_checkpoint_of_two_ranks_goes_on_in_any_number(count, sharded, two, folder):
    for metrics in in_processes(count, trainings.go_on_from, folder, sharded):
        same_losses(metrics, two[0]["sharded"]["grpo"]["metrics"])


def same_losses(found, expected):
    assert len(found) == trainings.UPDATES // 2
    for mine, its in zip(found, expected[-len(found) :], strict=True):
        assert mine["loss"] == pytest.approx(its["loss"], abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(its["grad_norm"], rel=1e-3)


def test_without_a_process_group_nothing_is_divided():
    with pytest.raises(UnmetNeedError, match="no process group"):
        shard(trainings.network())
    policy = trainings.network()
    with gathered(policy) as same:
        assert same is policy


def test_a_rank_holds_its_part_and_a_rollouts_weights_are_given_up(two):
    for mine, together, count in (rank["numbers"] for rank in two):
        assert mine <= together / count * 1.1


def test_a_sharded_training_by_muon_goes_on_from_what_it_saved(two):
    for expected, again, from_whole, why in (rank["muon"] for rank in two):
        assert again == expected and expected[-1] < expected[0]
        assert from_whole == pytest.approx(expected, abs=1e-4)
        assert why == "in process 1: [Errno 28] disk full"

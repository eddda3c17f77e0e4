"""Networks that are divided among processes train as whole ones do, and so do their checkpoints."""

import pytest
import torch
import torch.distributed as dist
import trainings
from comparing import same_gradient, same_training
from processes import in_processes

from agents.distribution.gathering import gathered
from agents.distribution.sharded import shard
from textenv.errors import UnmetNeedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("sharded"))


@pytest.fixture(scope="module")
def two(folder):
    return in_processes(2, trainings.run_sharded, folder)


@pytest.mark.parametrize("name", trainings.SHARDED)
def test_a_sharded_network_trains_as_a_whole_one(name, one, two):
    if name in trainings.FIRST:
        for rank in two:
            same_gradient(rank[name], one[name])
    else:
        same_training([rank[name] for rank in two], one[name])


def test_a_sharded_training_that_was_saved_goes_on_bit_for_bit(two):
    for rank in two:
        assert torch.equal(rank[trainings.RESUMED]["weights"], rank["grpo"]["weights"])


def test_a_checkpoint_of_two_ranks_goes_on_in_one_process(two, folder):
    same_losses(trainings.go_on_from(folder), two[0]["grpo"]["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_checkpoint_of_two_ranks_goes_on_in_any_number(count, sharded, two, folder):
    for metrics in in_processes(count, trainings.go_on_from, folder, sharded):
        same_losses(metrics, two[0]["grpo"]["metrics"])


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


def numbers_of_a_rank():
    """How many a rank holds of a sharded network, within `gathered` and behind it."""
    policy = trainings.network(sharded=True)
    with pytest.raises(UnmetNeedError, match="sharded already"):
        shard(policy)
    with pytest.raises(UnmetNeedError, match="TRPO differentiates"):
        trainings.learner_of("trpo", sharded=True).update()
    mine = sum(p.to_local().numel() for p in policy.parameters())
    with gathered(policy) as plain:
        together = sum(p.numel() for p in plain.parameters())
        plain.generate(["a"], 3)
        packed = [vars(m)["_packed"] for m in plain.modules() if "_packed" in vars(m)]
        assert together == sum(p.numel() for p in trainings.network().parameters())
    assert all(p.numel() == 0 for p in plain.parameters())
    assert packed and all(one._made is None for one in packed)
    return mine, together, dist.get_world_size()


def test_a_rank_holds_its_part_and_a_rollouts_weights_are_given_up():
    for mine, together, count in in_processes(2, numbers_of_a_rank):
        assert mine <= together / count * 1.1

"""All that two processes do for these tests, in one start of them, which takes seconds."""

import tempfile

import pytest
import torch
import torch.distributed as dist
import trainings
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.fsdp import fully_shard

from agents.algorithms.preferences import DPO
from agents.distribution import Ranks
from agents.distribution.checkpoints import of_ranks
from agents.distribution.gathering import gathered
from agents.distribution.sharded import shard
from agents.distribution.shares import in_shares
from agents.feedback.direct import DirectPreferences
from agents.runs.checkpoints import Checkpoints
from agents.supervised import Example, Fitting, muon, sft_steps
from textenv.errors import LostProcessError, UnmetNeedError


def everything(whole: str, sharded: str):
    """The trainings of whole and of sharded networks; folders are for their checkpoints."""
    return {
        "whole": trainings.run_all(whole),
        "sharded": trainings.run_sharded(sharded),
        "numbers": numbers_of_a_rank(),
        "refusals": refusals(),
        "muon": muon_goes_on(sharded + "-muon"),
    }


def numbers_of_a_rank():
    """How many a rank holds of a sharded network, within `gathered` and behind it."""
    policy = trainings.network(sharded=True)
    with pytest.raises(UnmetNeedError, match="sharded already"):
        shard(policy)
    with pytest.raises(UnmetNeedError, match="TRPO differentiates"):
        trainings.learner_of("trpo", sharded=True).update()
    other = trainings.network()
    fully_shard(other.transformer)
    with pytest.raises(UnmetNeedError, match="divided among processes by other code"):
        DirectPreferences(other, trainings.network(), DPO())
    mine = sum(p.to_local().numel() for p in policy.parameters())
    with gathered(policy) as plain:
        together = sum(p.numel() for p in plain.parameters())
        plain.generate(["a"], 3)
        packed = [vars(m)["_packed"] for m in plain.modules() if "_packed" in vars(m)]
        assert together == sum(p.numel() for p in trainings.network().parameters())
    assert all(p.numel() == 0 for p in plain.parameters())
    assert packed and all(one._made is None for one in packed)
    return mine, together, dist.get_world_size()


def saves(rank):
    """What is said when the second rank cannot write, and when it raises something else."""
    told = []
    for raised in (OSError(28, "disk full"), RuntimeError("a state of its own")):

        def write(folder, raised=raised):
            if rank == 1:
                raise raised

        with tempfile.TemporaryDirectory() as place, pytest.raises(Exception) as error:
            of_ranks(Checkpoints(f"{place}/checkpoint")).save(write)
        told.append(f"{type(error.value).__name__}: {error.value}")
    return told


def muon_goes_on(folder: str):
    """Losses under Muon: of a sharded network, and of sharded ones that go on from a saved one."""

    def made(sharded=True):
        policy = trainings.network(sharded)
        return policy, Fitting(policy, steps=6, learning_rate=1e-2, optimizer=muon)

    tokens = torch.arange(40).reshape(4, 10) % 11 + 97

    def steps(policy, fitting, count):
        def loss():
            def logprobs(rows):
                mask = torch.ones_like(tokens[rows], dtype=torch.bool)
                mask[:, 0] = False
                return policy.outputs(tokens[rows], mask).logprobs

            return -in_shares(logprobs, torch.full((4,), 10)).sum() / 36

        return [fitting.step([loss()]).loss for _ in range(count)]

    went_on = []
    for sharded in (True, False):
        policy, fitting = made(sharded)
        steps(policy, fitting, 3)
        fitting.save(f"{folder}-{sharded}")
        fitting.save_weights(f"{folder}-{sharded}")
        other, again = made()
        again.load(f"{folder}-{sharded}")
        again.load_weights(f"{folder}-{sharded}")
        went_on.append(steps(other, again, 3))

    def full(*given):
        raise OSError(28, "disk full")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError) as error:
        if dist.get_rank() == 1:
            patch.setattr(HuggingFaceStorageWriter, "write_data", full)
        again.save(f"{folder}-full")
    return steps(*made(), 6)[3:], *went_on, str(error.value)


def refusals():
    """What two processes that are told different things, or do the same work, are told."""
    rank, told = dist.get_rank(), {}

    def refused(name, act):
        with pytest.raises((UnmetNeedError, LostProcessError, ZeroDivisionError)) as error:
            act()
        told[name] = f"{type(error.value).__name__}: {error.value}"

    ranks = Ranks.found()
    refused("seeds", lambda: ranks.check_same(seed=rank))
    refused("first", lambda: ranks.by_first(lambda: 1 / 0))

    def undivided(policy, tokens, learned, lengths):
        return -policy.outputs(tokens, learned).logprobs.mean()

    policy = trainings.learner_of("grpo").policy
    examples = [Example((("a", False), ("bc", True)))] * 4
    refused("undivided", lambda: list(sft_steps(policy, examples, loss=undivided)))
    # Two copies of one row, one for each rank: equal gradients, and rightly so.
    steps = sft_steps(policy, examples[:2], batch_size=2, epochs=1)
    told["copies"] = len(list(steps))
    told["saves"] = saves(rank)
    # Rows in which some rank has nothing.
    weight = torch.ones(2, requires_grad=True)
    rows = torch.tensor([[1.0, 2.0]])
    found = in_shares(lambda places: rows[places] @ weight, torch.ones(1).long())
    found.sum().backward()
    ranks.sum_gradients([weight])
    told["gradient"] = (found.tolist(), weight.grad.tolist())
    unused = torch.ones(2, requires_grad=True)
    ranks.sum_gradients([unused])
    told["unused"] = unused.grad
    return told

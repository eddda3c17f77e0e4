"""All that two processes do for these tests, in one start of them, which takes seconds."""

import pytest
import torch
import torch.distributed as dist
import trainings

from agents.distribution import Ranks
from agents.distribution.gathering import gathered
from agents.distribution.sharded import shard
from agents.distribution.shares import in_shares
from agents.supervised import Example, sft_steps
from textenv.errors import LostProcessError, UnmetNeedError


def everything(whole: str, sharded: str):
    """The trainings of whole and of sharded networks; folders are for their checkpoints."""
    return {
        "whole": trainings.run_all(whole),
        "sharded": trainings.run_sharded(sharded),
        "numbers": numbers_of_a_rank(),
        "refusals": refusals(),
    }


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

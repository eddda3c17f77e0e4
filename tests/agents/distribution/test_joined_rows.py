"""Running episodes of shares are, put together, those of the whole environment."""

import numpy as np
import pytest
import torch
from two_turns import options

from agents.collector import Collector
from agents.distribution.rows import joined, part_of
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import CheckpointError

torch.set_num_threads(1)


def conversations(rows=8):
    arguments = options()
    return TextVectorEnv(rows, **arguments | {"prompts": ["c", "d", "cd"][:2]})


def answers(rows=8):
    return TextVectorEnv(
        rows,
        prompts=["the ", "a ", "some "],
        reward=lambda episodes: [float(len(e.text)) for e in episodes],
        max_new_tokens=6,
        min_new_tokens=2,
        stop_tokens=list(range(32, 128)),
        group_size=2,
    )


def same(one, other, where=""):
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            same(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=where)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}/{number}")
    else:
        assert one == other or (one != one and other != other), where


def with_masks_by_name(state):
    """The state with each action mask in the place of its number, that of its first use."""
    masks = [mask.tobytes().hex() for mask in state["masks"]]

    def named(numbers):
        return [masks[number] for number in np.asarray(numbers).flat]

    opened = state["open"] | {"mask_ids": named(state["open"]["mask_ids"])}
    closed = [{**s, "mask_ids": named(s["mask_ids"])} for s in state["closed"]]
    return {**state, "open": opened, "closed": closed, "masks": sorted(masks)}


@pytest.mark.parametrize("make", [conversations, answers])
@pytest.mark.parametrize("of", [2, 4])
def test_the_states_of_shares_are_together_that_of_the_whole(make, of):
    policy = TransformerPolicy.for_env(make(), n_layer=1, n_head=1, n_embd=8, seed=1)
    whole = Collector(policy, make(), seed=3)
    shares = [Collector(policy, make().share(index, of), seed=3) for index in range(of)]
    for collector in (whole, *shares):
        for _ in range(17):
            collector._step()
    states = [share.state_dict() for share in shares]
    expected = whole.state_dict()
    assert expected["closed"]
    together = joined(states)
    same(with_masks_by_name(together), with_masks_by_name(expected))

    # And back: collectors of parts go on as those that were never put together.
    for index, share in enumerate(shares):
        again = Collector(policy, make().share(index, of), seed=3)
        again.load_state_dict(part_of(together, index, of))
        for collector in (again, share):
            for _ in range(9):
                collector._step()
        same(with_masks_by_name(again.state_dict()), with_masks_by_name(share.state_dict()))


def test_rows_that_cannot_be_divided_are_refused():
    envs = answers()
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    with pytest.raises(CheckpointError, match="8 rows, which cannot be divided among 3"):
        part_of(Collector(policy, envs, seed=0).state_dict(), 0, 3)

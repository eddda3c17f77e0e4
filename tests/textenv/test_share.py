"""A share of an environment plays the rows that the whole one would."""

import numpy as np
import pytest
from environments import vector
from two_turns import Echo

from textenv.curriculum import Curriculum
from textenv.errors import UnmetNeedError


def answers(group_size):
    return vector(
        8,
        prompts=[f"{name} " for name in "abcdefgh"],
        reward=lambda episodes: [float(len(e.text)) for e in episodes],
        max_new_tokens=5,
        max_prompt_tokens=2,
        stop_tokens=[ord("x")],
        group_size=group_size,
    )


def conversations(group_size):
    return vector(
        8,
        prompts=list("abcd"),
        world=Echo,
        max_prompt_tokens=2,
        max_new_tokens=12,
        max_turn_tokens=2,
        stop_tokens=[ord("x")],
        group_size=group_size,
    )


def played(envs, actions, seed=5):
    """Observations, rewards and what is told of starts and ends, row by row."""
    told = []

    def tell(infos, row):
        named = {
            name: infos[name][row]
            for name in ("group", "episode_seed", "finish_reason", "turn")
            if name in infos and infos[f"_{name}"][row]
        }
        final = tell(infos["final_info"], row) if "final_info" in infos else {}
        return named | ({"final": final} if final else {})

    observations, infos = envs.reset(seed=seed)
    told.append([(observations[r], 0.0, tell(infos, r)) for r in range(envs.num_envs)])
    for action in actions:
        observations, rewards, _, _, infos = envs.step(action)
        told.append([(observations[r], rewards[r], tell(infos, r)) for r in range(envs.num_envs)])
    return told


@pytest.mark.parametrize("make", [answers, conversations])
@pytest.mark.parametrize(("group_size", "of"), [(1, 2), (2, 2), (2, 4), (1, 8), (8, 1)])
def test_shares_play_the_rows_of_the_whole(make, group_size, of):
    actions = np.random.default_rng(0).choice([ord("a"), ord("x")], p=[0.7, 0.3], size=(25, 8))
    whole = played(make(group_size), actions)
    envs, rows = make(group_size), 8 // of
    for index in range(of):
        mine = slice(index * rows, (index + 1) * rows)
        part = played(envs.share(index, of), actions[:, mine])
        for step, expected in zip(part, [step[mine] for step in whole], strict=True):
            for (observation, reward, told), (e_observation, e_reward, e_told) in zip(
                step, expected, strict=True
            ):
                np.testing.assert_array_equal(observation, e_observation)
                assert reward == e_reward and told == e_told
    if group_size > 1:
        assert any("group" in str(told) for *_, told in whole[-1] + whole[10])


def test_a_share_of_a_share_is_a_share():
    actions = np.full((6, 2), ord("a"))
    nested = answers(2).share(1, 2).share(1, 2)
    assert str(played(nested, actions)) == str(played(answers(2).share(3, 4), actions))


def test_rows_that_cannot_be_divided_are_refused():
    with pytest.raises(UnmetNeedError, match=r"8 rows in groups of 1 .* among 3 .* multiple of 3"):
        answers(1).share(0, 3)
    with pytest.raises(UnmetNeedError, match="multiple of 16"):
        answers(4).share(0, 4)


def test_a_source_that_is_told_all_scores_is_refused():
    envs = vector(4, prompts=Curriculum([{"prompt": "a"}, {"prompt": "b"}]), max_new_tokens=2)
    with pytest.raises(UnmetNeedError, match="Curriculum is told what was scored"):
        envs.share(0, 2)

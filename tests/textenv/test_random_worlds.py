"""Worlds of hypothesis: the environment of many rows does what that of one row does."""

import numpy as np
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from random_worlds import TOKENIZER, environments

from textenv import TextEnv, TextVectorEnv

ROWS, STEPS = 2, 24


def told(infos, row):
    """All that infos tell of a row, as their marks say."""
    found = {}
    for name, values in infos.items():
        if not name.startswith("_") and infos[f"_{name}"][row]:
            nested = isinstance(values, dict)
            found[name] = told(values, row) if nested else values[row]
    return found


def plain(info):
    """An info with plain values, which compare with ==; a group is known in a vector alone."""
    nested = {"reward_components", "world_info", "reply_info", "record"}
    return {
        name: dict(value) if name in nested else np.asarray(value).tolist()
        for name, value in info.items()
        if name != "group"
    }


@settings(deadline=None, max_examples=40, derandomize=True)
@given(arguments=environments(), seed=st.integers(0, 1_000))
def test_vector_equals_scalar(arguments, seed):
    envs = TextVectorEnv(ROWS, autoreset_mode=AutoresetMode.DISABLED, **arguments)
    singles = [TextEnv(**arguments) for _ in range(ROWS)]
    observations, infos = envs.reset(seed=seed)
    for row, env in enumerate(singles):
        observation, info = env.reset(seed=seed + row)
        assert (observation == observations[row]).all()
        assert plain(info) == plain(told(infos, row))
    choices = np.random.default_rng(seed)
    for _ in range(STEPS):
        actions = choices.integers(TOKENIZER.vocab_size, size=ROWS)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        over = terminated | truncated
        for row, env in enumerate(singles):
            observation, reward, ended, cut, info = env.step(actions[row])
            assert (observation == observations[row]).all()
            assert (reward, ended, cut) == (rewards[row], terminated[row], truncated[row])
            assert plain(info) == plain(told(infos, row))
        if over.any():
            observations, infos = envs.reset(options={"reset_mask": over})
            for row in np.flatnonzero(over).tolist():
                observation, info = singles[row].reset()
                assert (observation == observations[row]).all()
                assert plain(info) == plain(told(infos, row))

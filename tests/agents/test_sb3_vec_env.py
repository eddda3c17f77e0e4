"""`to_vec_env` against Stable-Baselines3's own `DummyVecEnv`, row by row."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from letters import Letters
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from agents.sb3 import SB3TokenPolicy, to_vec_env
from policies import TransformerPolicy
from textenv import TextEnv, TextVectorEnv

ROWS = 3
ARGUMENTS = {
    "prompts": [{"prompt": "a", "answer": 1}, {"prompt": "ab", "answer": 2}],
    "reward": lambda episodes: [e.columns["answer"] + 10.0 * len(e.tokens) for e in episodes],
    "tokenizer": Letters(4, stop=True),
    "max_new_tokens": 3,
}


def ours(**changes):
    return to_vec_env(TextVectorEnv(ROWS, **(ARGUMENTS | changes)))


def theirs(**changes):
    return DummyVecEnv([lambda: Monitor(TextEnv(**(ARGUMENTS | changes)))] * ROWS)


def same(a, b):
    """Infos alike, but for the seconds; keys that only Monitor or the single form has aside."""
    if isinstance(a, dict):
        assert set(a) == set(b)
        return all(same(a[key], b[key]) for key in a if key != "t")
    return np.array_equal(a, b)


@pytest.mark.parametrize("budget", ["terminate", "truncate"])
@pytest.mark.parametrize("masked", [False, True])
def test_steps_like_dummy_vec_env(budget, masked):
    changes = {"budget": budget, "min_new_tokens": int(masked)}
    a, b = ours(**changes), theirs(**changes)
    for env in (a, b):
        env.seed(5)
    assert np.array_equal(a.reset(), b.reset())
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        assert all(same(x, y) for x, y in zip(a.reset_infos, b.reset_infos, strict=True))
        actions = rng.integers(0, 5, ROWS)
        one, two = a.step(actions), b.step(actions)
        for x, y in zip(one[:3], two[:3], strict=True):
            assert np.array_equal(x, y) and x.dtype == y.dtype
        for done, mine, its in zip(one[2], one[3], two[3], strict=True):
            if done:
                ends += 1
                assert same(mine, its)
            else:  # DummyVecEnv repeats the flag, and the single form its masks, at every step
                assert mine == {}
    assert ends > 20


def test_options_and_seeds_hold_for_one_reset():
    env = ours()
    env.seed(3)
    env.set_options([{"prompt": "b"}, {"prompt": "cc"}, {"prompt": "d"}])
    first = env.reset()
    assert first[:, :2].tolist() == [[1, 5], [2, 2], [3, 5]]
    env.seed(3)
    again = env.reset()
    assert {info["prompt"] for info in env.reset_infos} <= {"a", "ab"}
    env.seed(3)
    assert np.array_equal(env.reset(), again)


def test_options_of_different_names_are_refused():
    env = ours()
    env.set_options([{"prompt": "b"}, {"tokens": [1]}, {"prompt": "d"}])
    with pytest.raises(ValueError, match="every row needs the same options"):
        env.reset()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_another_autoreset_mode_is_refused(mode):
    with pytest.raises(ValueError, match="SAME_STEP"):
        ours(autoreset_mode=mode)


def test_attributes_and_methods():
    env = ours(render_mode="ansi")
    env.reset()
    assert env.get_attr("max_new_tokens") == [3, 3, 3]
    assert env.get_attr("max_new_tokens", indices=1) == [3]
    env.set_attr("label", "x")
    assert env.get_attr("label") == ["x"] * 3
    with pytest.raises(ValueError, match="share one environment"):
        env.set_attr("label", "y", indices=[0])
    masks = env.env_method("action_masks", indices=[0, 2])
    assert [mask.shape for mask in masks] == [(5,), (5,)]
    assert env.env_method("row_text", 1, indices=0) == [env.envs.row_text(1)]
    assert env.env_method("render") == list(env.envs.render())
    assert env.render_mode == "ansi"
    assert env.has_attr("action_masks") and not env.has_attr("no_such_name")
    env.close()


def test_a_wrapped_environment_keeps_its_wrapper():
    envs = TextVectorEnv(ROWS, **ARGUMENTS)
    doubled = gym.wrappers.vector.TransformReward(envs, lambda reward: 2 * reward)
    a, b = to_vec_env(doubled), ours()
    for env in (a, b):
        env.seed(0)
        env.reset()
    for _ in range(6):
        one, two = a.step(np.zeros(ROWS, int)), b.step(np.zeros(ROWS, int))
        assert np.array_equal(one[1], 2 * two[1])
        for mine, plain in zip(one[3], two[3], strict=True):
            assert mine.get("episode", {"r": 0})["r"] == 2 * plain.get("episode", {"r": 0})["r"]


def test_sb3_wrappers():
    env = VecNormalize(ours(), norm_obs=False)
    env.reset()
    for _ in range(21):
        observations, rewards, dones, _ = env.step(np.zeros(ROWS, int))
    assert observations.dtype == np.int64 and dones.any() and rewards.max() < 10  # scaled

    with pytest.warns(UserWarning, match="already wrapped"):  # there are statistics already
        env = VecMonitor(ours())
    env.reset()
    ends = [info["episode"] for _ in range(5) for info in env.step(np.zeros(ROWS, int))[3] if info]
    assert {end["l"] for end in ends} == {3} and {end["r"] for end in ends} <= {31.0, 32.0}


def test_a_stack_of_frames_is_refused():
    stacked = VecFrameStack(ours(), n_stack=2)
    wide = SB3TokenPolicy(  # SB3 stacks along the last axis: this shows as a longer text
        ours().observation_space, ours().action_space, lambda _: 1e-3, n_layer=1, n_embd=8, n_head=1
    )
    stacked.reset()
    assert stacked.observation_space.shape != wide.observation_space.shape
    space = gym.spaces.Box(0, 5, (2, 5), np.int64)
    with pytest.raises(ValueError, match="a stack of frames is not needed"):
        SB3TokenPolicy(space, ours().action_space, lambda _: 1e-3)


def test_a_policy_for_it_keeps_the_tokenizer():
    policy = TransformerPolicy.for_env(ours(), n_layer=1, n_head=1, n_embd=8)
    assert policy.tokenizer.name == "letters"
    assert (policy.vocab_size, policy.context) == (5, 5)

"""Bad input to the environment: a named error that holds the value and the way out."""

import math

import gymnasium as gym
import numpy as np
import pytest
from environments import nothing, number_of_a, single, vector
from gymnasium.vector import AutoresetMode

from textenv import Prompt
from textenv.errors import (
    ActionError,
    EmptyPromptsError,
    EpisodeOverError,
    InvalidRewardError,
    MalformedRecordError,
    ObjectNotFoundError,
    PromptError,
    PromptTooLongError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
    TextEnvError,
    UnknownTokenizerError,
)
from textenv.rewards import dense, per_text

# ---------------------------------------------------------------- making it


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"prompts": []}, EmptyPromptsError, "the list of prompts is empty"),
        ({"prompts": ["a", ""]}, EmptyPromptsError, r"prompts\[1\]: .* use a newline, or"),
        ({"prompts": ["a", {"tokens": []}]}, EmptyPromptsError, r"prompts\[1\]"),
        ({"prompts": "hello"}, PromptError, r"'hello' is neither a path .* pass a list"),
        ({"prompts": [1]}, PromptError, r"prompts\[0\]: the prompt is 1 of type int"),
        ({"prompts": [{"tokens": [1, 300]}]}, PromptError, r"prompts\[0\]: .* 300; .* 0 to 256"),
        (
            {"prompts": ["ok", "far too long"], "max_prompt_tokens": 5},
            PromptTooLongError,
            r"prompts\[1\]: the prompt 'far too long' has 12 tokens, max_prompt_tokens is 5",
        ),
        ({"prompts": lambda rng: "x"}, PromptError, "max_prompt_tokens is needed"),
        ({"max_prompt_tokens": 0}, PromptError, "max_prompt_tokens is 0"),
        ({"tokenizer": "gtp2"}, UnknownTokenizerError, r"'gtp2' .*did you mean 'gpt2'"),
        ({"reward": 3}, InvalidRewardError, "3 of type int is not a reward"),
        ({"reward": "no_such_module:reward"}, ObjectNotFoundError, "no_such_module"),
        ({"prompts": "no_such_module:prompts"}, ObjectNotFoundError, "no_such_module"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens 0"),
        ({"min_new_tokens": 5}, ValueError, r"min_new_tokens is 5; it must be within 0\.\.4"),
        ({"min_new_tokens": -1}, ValueError, "min_new_tokens is -1"),
        ({"budget": "stop"}, ValueError, r"'stop'; it must be one of \('terminate', 'truncate'\)"),
        ({"stop_tokens": [257]}, ValueError, "stop_tokens holds 257; tokens are 0 to 256"),
        ({"stop_tokens": ["."]}, ValueError, r"stop_tokens holds '\.'; tokens are 0 to 256"),
        ({"forbidden_tokens": [-1]}, ValueError, "forbidden_tokens holds -1"),
        ({"forbidden_tokens": range(257)}, ValueError, "257 of 257 .* no token is left to choose"),
        (
            {"forbidden_tokens": range(256), "min_new_tokens": 1},
            ValueError,
            "256 of 257 tokens and min_new_tokens=1 excludes 1 stop tokens: no token is left",
        ),
    ],
)
def test_arguments(arguments, error, message):
    for make in (single, vector):
        with pytest.raises(error, match=message):
            make(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"num_envs": 4, "group_size": 3}, "group_size 3 does not divide num_envs 4"),
        ({"num_envs": 4, "group_size": 0}, "group_size 0 does not divide"),
        ({"num_envs": 4, "render_mode": "human"}, r"'human'; it must be one of \(None, 'ansi'\)"),
        ({"num_envs": 4, "autoreset_mode": "sometimes"}, "'sometimes' is not a valid"),
        ({"num_envs": 4.0}, r"must be whole numbers; one is 4\.0"),
        ({"num_envs": 4, "max_new_tokens": "8"}, "must be whole numbers; one is '8'"),
    ],
)
def test_arguments_of_the_vector(arguments, message):
    with pytest.raises(ValueError, match=message):
        vector(**arguments)


def test_the_limit_of_gymnasium():
    """As a time limit it would cut answers before they are scored."""
    arguments = {"prompts": ["x"], "reward": nothing}
    with pytest.raises(ValueError, match=r"max_episode_steps is 4; .*max_new_tokens=4"):
        gym.make_vec("textenv/Generate-v0", num_envs=2, max_episode_steps=4, **arguments)
    envs = gym.make_vec("textenv/Generate-v0", num_envs=2, max_episode_steps=None, **arguments)
    assert envs.max_new_tokens == 64


@pytest.mark.parametrize("arguments", [{"num_envs": 4}, {"group_size": 1}, {"autoreset_mode": 1}])
def test_arguments_of_many_rows_for_one(arguments):
    with pytest.raises(ValueError, match="belong to an environment of many rows"):
        gym.make("textenv/Generate-v0", prompts=["x"], reward=nothing, **arguments)


def test_an_unknown_render_mode():
    with pytest.raises(ValueError, match=r"'rgb_array'; it must be None or one of \['ansi'"):
        single(render_mode="rgb_array")


def test_a_malformed_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(MalformedRecordError, match=r"prompts\.jsonl:2: not JSON"):
        vector(prompts=path)


def test_errors_reach_the_user_of_gym_make():
    with pytest.raises(UnknownTokenizerError, match="no_such"):
        gym.make("textenv/Generate-v0", prompts=["x"], reward=nothing, tokenizer="no_such")
    with pytest.raises(PromptTooLongError, match="max_prompt_tokens is 1"):
        gym.make_vec("textenv/Generate-v0", prompts=["xyz"], reward=nothing, max_prompt_tokens=1)


# ---------------------------------------------------------------- prompts that come later


def test_a_function_that_makes_too_long_a_prompt():
    envs = vector(4, prompts=lambda rng: "x" * rng.integers(1, 30), max_prompt_tokens=10)
    with pytest.raises(PromptTooLongError, match=r"row \d: the prompt 'x+' has [12]\d tokens"):
        for _ in range(20):
            envs.reset()


def test_a_source_that_gives_the_wrong_number_of_prompts():
    class Short:
        def draw(self, seeds):
            return [Prompt("x")] * (len(seeds) - 1)

    envs = vector(3, prompts=Short(), max_prompt_tokens=2)
    with pytest.raises(PromptError, match=r"Short\.draw gave 2 prompts for 3 seeds"):
        envs.reset(seed=0)


# ---------------------------------------------------------------- actions


@pytest.mark.parametrize(
    "actions, message",
    [
        ([65, 257], "the action of row 1 is 257; tokens are 0 to 256"),
        ([-1, 65], "the action of row 0 is -1; tokens are 0 to 256"),
        ([65, 2**40], "row 1 is 1099511627776"),
        (np.array([65, 2**63 + 5], np.uint64), "row 1 is 9223372036854775813"),
        ([65], r"shape \(1,\) and dtype int64; they must be 2 integers"),
        ([[65, 66]], r"shape \(1, 2\)"),
        (65, r"shape \(\)"),
        ([65.0, 66.0], "dtype float64; they must be 2 integers"),
        ([True, False], "dtype bool"),
        (["a", "b"], "dtype <U1"),
    ],
)
def test_actions_that_are_none(actions, message):
    envs = vector(2)
    envs.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        envs.step(actions)
    assert envs.step([65, 66])[0][:, 2].tolist() == [65, 66]  # nothing had happened


@pytest.mark.parametrize("action", [257, -1, 1.5, "a", None, [65], True])
def test_an_action_of_the_single_environment(action):
    env = single()
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(action)


def test_pad_is_no_action():
    env = single()
    env.reset(seed=0)
    assert not env.action_space.contains(env.pad_token)
    with pytest.raises(ActionError, match="257"):
        env.step(env.pad_token)


# ---------------------------------------------------------------- episodes that are over


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_stepping_before_the_first_reset(mode):
    with pytest.raises(EpisodeOverError, match=r"rows \[0, 1\] .* call reset\(\) first"):
        vector(2, autoreset_mode=mode).step([65, 66])
    with pytest.raises(EpisodeOverError):
        single().step(65)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_stepping_rows_that_were_never_reset(mode):
    envs = vector(2, autoreset_mode=mode)
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(EpisodeOverError, match=r"rows \[1\]"):
        envs.step([65, 66])


def test_stepping_after_the_end():
    env = single(max_new_tokens=1)
    env.reset(seed=0)
    env.step(65)
    with pytest.raises(EpisodeOverError, match=r"call reset\(\) first"):
        env.step(65)
    env.reset()
    env.step(65)


# ---------------------------------------------------------------- rewards


def raises(episodes):
    raise KeyError("answer")


@pytest.mark.parametrize(
    "reward, error, message",
    [
        (raises, RewardRaisedError, "reward 'raises' raised KeyError: 'answer'; on .*'x>'"),
        (per_text(lambda text: 1 / 0, "ratio"), RewardRaisedError, "'ratio' raised ZeroDivision"),
        (lambda episodes: [math.nan] * len(episodes), RewardValueError, "nan .*'x>'"),
        (lambda episodes: [math.inf] * len(episodes), RewardValueError, "inf"),
        (lambda episodes: ["1"] * len(episodes), RewardValueError, "'1'"),
        (lambda episodes: [1.0], RewardCountError, "2"),
        (lambda episodes: None, RewardCountError, "None"),
        (dense(lambda batch: batch.actions / 0), RewardValueError, "inf"),
        (dense(lambda batch: [0.0]), RewardCountError, "2"),
    ],
)
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_rewards_that_fail(reward, error, message, mode):
    envs = vector(2, reward=reward, max_new_tokens=1, autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(error, match=message):
        envs.step([65, 66])


@pytest.mark.parametrize("kind", ["episode", "dense"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_after_a_reward_has_failed_the_environment_is_sound(mode, kind):
    """The rows that ended are over, and no text has grown beyond its budget."""
    fail = [True]

    def sometimes(batch):
        if fail.pop() if fail else False:
            raise RuntimeError("no memory")
        return [1.0] * len(batch)

    reward = dense(sometimes) if kind == "dense" else sometimes
    envs = vector(2, reward=reward, max_new_tokens=1, autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(RewardRaisedError, match="no memory"):
        envs.step([65, 66])
    if mode is not AutoresetMode.NEXT_STEP:
        with pytest.raises(EpisodeOverError, match=r"rows \[0, 1\]"):
            envs.step([65, 66])
        envs.reset()
    else:
        assert envs.step([65, 66])[0].tolist() == [[120, 62, 257]] * 2
    observations, rewards, *_ = envs.step([67, 68])
    assert rewards.tolist() == [1.0, 1.0]
    if mode is not AutoresetMode.SAME_STEP:
        assert observations.tolist() == [[120, 62, 67], [120, 62, 68]]


def test_all_named_errors_have_one_base():
    for error in (ActionError, EpisodeOverError, PromptTooLongError, RewardRaisedError):
        assert issubclass(error, TextEnvError)


def test_a_good_reward_is_not_in_the_way():
    envs = vector(2, reward=number_of_a, max_new_tokens=1)
    envs.reset(seed=0)
    assert envs.step([97, 98])[1].tolist() == [1.0, 0.0]

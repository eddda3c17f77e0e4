"""Every rule of `textenv.testing` lets our environments pass, and catches one that breaks it."""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from broken_environments import ARGUMENTS, BREAKERS, good
from broken_vectors import VECTOR_BREAKERS, Rows, good_vector
from environments import REWARDS, single, vector
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import (
    RecordEpisodeStatistics,
    TimeLimit,
    TransformReward,
)
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVectorStatistics

from textenv import TextEnv
from textenv.testing import (
    ENV_RULES,
    VECTOR_RULES,
    TextEnvContract,
    TextVectorEnvContract,
    check_text_env,
)

NAME = "textenv/Generate-v0"
NO_SPEC = {"the_spec_goes_through_json"}
STRINGS = {"prompts": ["abc", "d"], "reward": "environments:nothing", "max_new_tokens": 3}


# ---------------------------------------------------------------- what passes


class TestSingle(TextEnvContract):
    def make(self, **kwargs):
        return good(**kwargs)


class TestVector(TextVectorEnvContract):
    def make(self, **kwargs):
        return vector(**{"num_envs": 3, **ARGUMENTS, **kwargs})


def test_each_rule_is_a_test_of_its_own():
    for contract, rules in ((TestSingle, ENV_RULES), (TestVector, VECTOR_RULES)):
        tests = [name for name in dir(contract) if name.startswith("test_")]
        assert sorted(tests) == sorted(f"test_{rule.__name__}" for rule in rules)
        assert all(getattr(contract, name).__doc__ for name in tests)


def noisy_prompt(rng):
    return str(rng.integers(100))


KINDS = {
    "dense": {"reward": REWARDS["both"], "budget": "truncate"},
    "masks": {"min_new_tokens": 3, "forbidden_tokens": [0, 1, 2]},
    "no stop": {"stop_tokens": [], "prompts": [{"tokens": [104, 105]}, {"tokens": [200]}]},
    "stops": {"stop_tokens": range(257), "prompts": noisy_prompt, "max_prompt_tokens": 5},
    "one token": {"max_new_tokens": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_our_environments_pass(kind):
    arguments = {**ARGUMENTS, **KINDS[kind]}
    assert set(check_text_env(functools.partial(single, **arguments))) == NO_SPEC
    groups = functools.partial(vector, **{"num_envs": 4, "group_size": 2, **arguments})
    assert set(check_text_env(groups)) == NO_SPEC


def test_what_gym_makes_passes():
    assert check_text_env(functools.partial(gym.make, NAME, **STRINGS)) == {}
    assert check_text_env(functools.partial(gym.make_vec, NAME, num_envs=2, **STRINGS)) == {}


@pytest.mark.parametrize(
    "wrap",
    [
        RecordEpisodeStatistics,
        lambda env: TimeLimit(env, 3),
        lambda env: TransformReward(env, lambda reward: 2 * reward - 1),
    ],
)
def test_wrapped_environments_pass(wrap):
    assert set(check_text_env(lambda **kwargs: wrap(good(**kwargs)))) == NO_SPEC


def test_vectors_of_gymnasium_pass():
    skipped = check_text_env(functools.partial(Rows, functools.partial(good, min_new_tokens=2)))
    assert set(skipped) == NO_SPEC | {"rows_equal_environments_of_their_own"}
    wrapped = check_text_env(lambda **kwargs: RecordVectorStatistics(good_vector(**kwargs)))
    assert set(wrapped) == NO_SPEC


def test_an_environment_that_was_made_is_checked_as_it_is_and_closed():
    class Closing(TextEnv):
        closed = 0

        def close(self):
            self.closed += 1

    env = Closing(**ARGUMENTS)
    assert set(check_text_env(env)) == NO_SPEC | {"render_modes_work"}
    assert env.closed == 2
    shown = Closing(**ARGUMENTS, render_mode="ansi")
    assert set(check_text_env(shown)) == NO_SPEC
    skipped = check_text_env(good_vector(autoreset_mode=AutoresetMode.NEXT_STEP))
    assert set(skipped) == NO_SPEC | {"render_modes_work", "rows_equal_environments_of_their_own"}


def test_what_is_no_environment():
    with pytest.raises(TypeError, match="3 is not an environment and does not make one"):
        check_text_env(3)
    with pytest.raises(TypeError, match="made 'x', which is not an environment"):
        check_text_env(lambda: "x")
    with pytest.raises(NotImplementedError, match=r"define make\(self, \*\*kwargs\)"):
        TextEnvContract().make()
    with pytest.raises(NotImplementedError, match=r"define make\(self, \*\*kwargs\)"):
        TextVectorEnvContract().make()


def test_what_cannot_be_checked_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    skipped = check_text_env(functools.partial(good, prompts=["one"]))
    assert skipped["stable_baselines3_agrees"] == "stable_baselines3 is not installed"
    assert skipped["seeds_choose_the_prompts"] == "one prompt only"


def test_it_is_imported_without_anything_heavy():
    code = "import textenv.testing, sys; print('torch' in sys.modules, 'pytest' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


# ---------------------------------------------------------------- what is broken


def test_every_rule_is_broken_here():
    assert set(BREAKERS) == {rule.__name__ for rule in ENV_RULES}
    assert set(VECTOR_BREAKERS) == {rule.__name__ for rule in VECTOR_RULES}


def cases(breakers):
    return [
        pytest.param(rule, make, message, id=f"{rule}-{number}")
        for rule, made in breakers.items()
        for number, (make, message) in enumerate(made)
    ]


@pytest.mark.parametrize(("rule", "make", "message"), cases(BREAKERS) + cases(VECTOR_BREAKERS))
def test_what_is_broken_is_caught(rule, make, message):
    """Each by its own rule, those before it being content."""
    with pytest.raises(AssertionError, match=f"(?s)^{rule}: .*{message}"):
        check_text_env(make)


def test_the_contracts_catch_it_in_the_test_of_the_rule():
    for contract, breakers in (
        (TextEnvContract, BREAKERS),
        (TextVectorEnvContract, VECTOR_BREAKERS),
    ):
        for rule, [(make, _), *_] in breakers.items():
            mine = type("Mine", (contract,), {"make": staticmethod(make)})()
            with pytest.raises(AssertionError, match=f"^{rule}: "):
                getattr(mine, f"test_{rule}")()

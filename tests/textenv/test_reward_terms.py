"""Calling a reward: what counts as its values, and what it is told when it misbehaves."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from episodes import EPISODES, episode, only_term, score, step_batch
from hypothesis import given
from hypothesis import strategies as st

from textenv.errors import RewardCountError, RewardRaisedError, RewardValueError
from textenv.reward_terms import call_on_episodes, call_on_steps
from textenv.rewards import dense


@pytest.mark.parametrize(
    "values",
    [
        [3, 5],
        (3.0, 5.0),
        np.array([3, 5], dtype=np.int8),
        np.array([3.0, 5.0], dtype=np.float16),
        [np.float32(3), np.int64(5)],
        [Fraction(3), 5],
        torch.tensor([3.0, 5.0]),
        torch.tensor([3.0, 5.0], requires_grad=True),
        torch.tensor([3.0, 5.0], dtype=torch.bfloat16),
        torch.tensor([3, 5]),
        [torch.tensor(3.0), torch.tensor(5.0)],
        [torch.tensor(3.0, requires_grad=True), torch.tensor(5.0, dtype=torch.bfloat16)],
    ],
    ids=str,
)
def test_any_two_numbers_are_values(values):
    got = call_on_episodes(only_term(lambda episodes: values), EPISODES)
    assert got.dtype == np.float64 and got.shape == (2,)
    assert got.tolist() == [3.0, 5.0]


def test_truth_values_are_numbers():
    assert score(lambda episodes: [True, np.False_]) == [1.0, 0.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_finite_values_arrive_unchanged(values):
    assert score(lambda episodes: values, [EPISODES[0]] * len(values)) == values


def test_the_result_does_not_share_memory_with_the_reward():
    buffer = np.array([1.0, 2.0])
    got = call_on_episodes(only_term(lambda episodes: buffer), EPISODES)
    buffer[:] = 7
    assert got.tolist() == [1.0, 2.0]


def test_a_reward_is_not_called_for_nothing():
    def fail(episodes):
        raise AssertionError

    assert score(fail, []) == []


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-np.inf, "-inf"),
        (np.float32("nan"), "nan"),
        (None, "None"),
        ("1.0", "'1.0'"),
        ([1.0, 2.0], r"\[1\.0, 2\.0\]"),
        (10**400, r"100+\.\.\.0+"),
        (1j, "1j"),
        (torch.tensor([1.0]), r"tensor\(\[1\.\]\)"),
    ],
)
def test_a_value_that_is_no_finite_number_is_shown_with_its_episode(bad, shown):
    def flaky(episodes):
        return [0.5, bad]

    message = rf"'flaky' returned .*{shown} for episode 1 of 2 .*prompt 'c', answer 'hello'"
    with pytest.raises(RewardValueError, match=message):
        score(flaky)


@pytest.mark.parametrize("as_what", [np.array, torch.tensor])
def test_nan_in_an_array(as_what):
    with pytest.raises(RewardValueError, match="returned nan for episode 0"):
        score(lambda episodes: as_what([float("nan"), 1.0]))


def test_long_texts_are_cut_in_messages():
    long = episode("p" * 10_000, "a" * 10_000)
    with pytest.raises(RewardValueError) as e:
        score(lambda episodes: [None], [long])
    assert len(str(e.value)) < 400


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ([1.0], "1 values for 2"),
        ([1.0, 2.0, 3.0], "3 values for 2"),
        ([], "0 values for 2"),
        (np.zeros(3), "3 values for 2"),
        (np.zeros((2, 1)), r"shape \(2, 1\).*of shape \(2,\)"),
        (torch.zeros(2, 1), r"shape \(2, 1\)"),
        (1.0, r"1\.0; it must"),
        (np.float64(1), r"1\.0\)?; it must"),
        (None, "None; it must"),
        ({"a": 1.0, "b": 2.0}, "{'a': 1.0"),
        ("ab", "'ab'; it must"),
        ((x for x in (1.0, 2.0)), "generator"),
    ],
    ids=str,
)
def test_the_wrong_number_of_values(returned, shown):
    def flaky(episodes):
        return returned

    with pytest.raises(RewardCountError, match=f"'flaky' returned .*{shown}"):
        score(flaky)


def test_what_a_reward_raises_is_the_cause():
    def broken(episodes):
        return {}["answer"]

    with pytest.raises(
        RewardRaisedError, match=r"'broken' raised KeyError: 'answer'.*prompt 'ab'"
    ) as e:
        score(broken)
    assert isinstance(e.value.__cause__, KeyError)


def test_an_interrupt_is_no_error_of_the_reward():
    def interrupted(episodes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(interrupted)


def test_a_dense_reward_that_fails_names_the_row():
    def flaky(batch):
        return [0.0, float("nan")]

    with pytest.raises(
        RewardValueError, match=r"'flaky' returned nan for episode 1 of 2 .*'c', answer 'h'"
    ):
        call_on_steps(only_term(dense(flaky)), step_batch())
    with pytest.raises(RewardCountError, match="1 values for 2"):
        call_on_steps(only_term(dense(lambda batch: [0.0])), step_batch())
    with pytest.raises(RewardRaisedError, match=r"AttributeError.*'ab', answer 'xe'"):
        call_on_steps(only_term(dense(lambda batch: batch.text)), step_batch())

"""Rewards: adapters, names, sums, copies and pickles."""

import copy
import pickle
import textwrap
from functools import partial

import numpy as np
import pytest
import torch
from episodes import EPISODES, lengths, only_term, score, step_batch

from textenv.errors import (
    InvalidRewardError,
    ObjectNotFoundError,
    RewardError,
    RewardRaisedError,
)
from textenv.rewards import (
    Dense,
    RewardTerm,
    call_on_episodes,
    call_on_steps,
    dense,
    from_trl,
    per_text,
    reward_terms,
    shared,
    weighted,
)


class Judge:
    """A reward with something large inside."""

    def __init__(self):
        self.network = torch.nn.Linear(2, 1)

    def __call__(self, episodes):
        return [1.0] * len(episodes)


# ------------------------------------------------------------------ terms and their names


def test_a_single_reward_is_one_term_of_weight_one():
    term = only_term(lengths)
    assert (term.name, term.weight, term.function, term.dense) == ("lengths", 1.0, lengths, False)


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        (lambda episodes: [0.0], "lambda"),
        (partial(lengths), "lengths"),
        (Judge(), "Judge"),
        (Judge().__call__, "call"),
        (shared(Judge()), "Judge"),
        (shared(Judge(), name="mine"), "mine"),
        (per_text(len), "len"),
        (dense(lengths), "lengths"),
    ],
)
def test_names(reward, name):
    assert only_term(reward).name == name


def test_a_reward_named_by_a_string(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            from textenv.rewards import dense, per_text, weighted

            def ones(episodes):
                return [1.0] * len(episodes)

            per_step = dense(lambda batch: batch.ended)
            both = weighted(a=(1, ones), b=(2, per_step))
            """
        )
    )
    assert score(f"{file}:ones") == [1.0, 1.0]
    assert only_term(f"{file}:per_step").dense
    assert [t.name for t in reward_terms(f"{file}:both")] == ["a", "b"]
    assert [t.name for t in weighted(x=(1, f"{file}:both")).terms] == ["x.a", "x.b"]
    with pytest.raises(ObjectNotFoundError, match="did you mean ones"):
        reward_terms(f"{file}:one")


async def patient(episodes):
    return [0.0] * len(episodes)


class AsyncJudge:
    async def __call__(self, episodes):
        return [0.0] * len(episodes)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (None, "None of type NoneType"),
        ([lengths], "of type list"),
        (Judge, "is a class"),
        (patient, "async"),
        (AsyncJudge(), "async"),
    ],
)
def test_what_is_no_reward(reward, message):
    with pytest.raises(InvalidRewardError, match=message):
        reward_terms(reward)
    for adapter in (per_text, dense, shared):
        with pytest.raises(InvalidRewardError, match=message):
            adapter(reward)


def test_adapters_do_not_nest():
    with pytest.raises(InvalidRewardError, match="already"):
        shared(dense(lengths))


def test_errors_of_rewards_have_one_base():
    assert issubclass(InvalidRewardError, RewardError) and issubclass(InvalidRewardError, TypeError)


# ------------------------------------------------------------------ adapters


def test_per_text_sees_the_answer_without_prompt_and_stop_token():
    assert score(per_text(lambda text: {"xyz": 1.5, "hello": -2.0}[text])) == [1.5, -2.0]


def test_per_text_knows_which_text_failed():
    def fussy(text):
        return 1 / (text != "hello")

    with pytest.raises(
        RewardRaisedError, match=r"'fussy' raised ZeroDivisionError.*episode 1 of 2.*'hello'"
    ) as e:
        score(per_text(fussy))
    assert isinstance(e.value.__cause__, ZeroDivisionError)


# ------------------------------------------------------------------ dense rewards


def test_a_dense_reward_sees_the_rows_that_moved():
    def vowel_or_end(batch):
        letters = [batch.tokenizer.decode([a]) for a in batch.actions.tolist()]
        return np.array([c in set("aeiou") for c in letters]) - 1.0 * batch.ended

    term = only_term(dense(vowel_or_end))
    assert term.dense
    assert call_on_steps(term, step_batch()).tolist() == [1.0, -1.0]


# ------------------------------------------------------------------ sums


def test_a_sum_keeps_its_parts_apart():
    reward = weighted(size=(-0.01, lengths), ends=(np.float32(2), dense(lambda b: b.ended)))
    size, ends = reward_terms(reward)
    assert (size.name, size.weight, size.dense) == ("size", -0.01, False)
    assert (ends.name, ends.weight, ends.dense) == ("ends", 2.0, True)
    assert call_on_episodes(size, EPISODES).tolist() == [3.0, 5.0]  # the weight is the caller's
    assert call_on_steps(ends, step_batch()).tolist() == [0.0, 1.0]


def test_a_product_of_weights_that_is_not_finite_is_refused():
    inner = weighted(a=(1e200, per_text(len)))
    with pytest.raises(InvalidRewardError, match=r"weights of outer\.a multiply to inf"):
        weighted(outer=(1e200, inner))


def test_nested_sums_are_flattened_with_the_product_of_the_weights():
    inner = weighted(a=(2, lengths), b=(3, lengths))
    middle = weighted(inner=(5, inner), c=(7, lengths))
    outer = weighted(x=(0.1, middle), d=(0, lengths))
    assert [(t.name, round(t.weight, 9)) for t in outer.terms] == [
        ("x.inner.a", 1.0),
        ("x.inner.b", 1.5),
        ("x.c", 0.7),
        ("d", 0.0),
    ]


@pytest.mark.parametrize(
    "part",
    [
        lengths,
        (lengths, 1.0),
        (1.0,),
        (float("nan"), lengths),
        (float("inf"), lengths),
        ("1", lengths),
    ],
)
def test_a_part_that_is_no_pair(part):
    with pytest.raises(InvalidRewardError, match=r"size=.*write weighted\(size=\(1\.0, reward\)\)"):
        weighted(size=part)


def test_names_in_a_sum():
    with pytest.raises(InvalidRewardError, match="no parts"):
        weighted()
    with pytest.raises(InvalidRewardError, match="named '_size'"):
        weighted(_size=(1, lengths))
    with pytest.raises(InvalidRewardError, match=r"named 'a\.b'"):
        weighted(a=(1, weighted(b=(1, lengths))), **{"a.b": (1, lengths)})
    with pytest.raises(InvalidRewardError, match="of type int"):
        weighted(size=(1.0, 3))


# ------------------------------------------------------------------ copies and pickles


def test_deep_copies_share_what_a_reward_holds():
    judge = Judge()
    for reward in (
        shared(judge),
        per_text(judge),
        from_trl(judge),
        dense(judge),
        weighted(a=(1.0, judge)),
        RewardTerm("judge", 1.0, judge, dense=False),
    ):
        assert copy.deepcopy({"reward": reward})["reward"] is reward
    assert copy.deepcopy(judge) is not judge  # which is why `shared` exists


def test_adapters_pickle_with_what_they_wrap():
    for reward in (
        per_text(len, name="size"),
        shared(lengths),
        weighted(size=(0.5, lengths), size_too=(2.0, per_text(len))),
    ):
        back = pickle.loads(pickle.dumps(reward))
        for before, after in zip(reward_terms(reward), reward_terms(back), strict=True):
            assert (after.name, after.weight) == (before.name, before.weight)
            assert call_on_episodes(after, EPISODES).tolist() == [3.0, 5.0]
    term = only_term(pickle.loads(pickle.dumps(dense(np.size, name="k"))))
    assert (term.name, term.dense) == ("k", True) and isinstance(term.function, Dense)


def test_no_reward_has_the_method_that_makes_sb3_see_a_goal_env():
    for reward in (per_text(len), from_trl(lengths), dense(lengths), shared(lengths)):
        assert not hasattr(reward, "compute_reward")

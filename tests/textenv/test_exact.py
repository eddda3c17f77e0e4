"""Sums over all answers, by hand on three of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import Letters

from textenv import TextEnv
from textenv.testing import exact

LN2 = math.log(2)


def value(episodes):
    """8 for "a", 4 for "aa", -2 for the empty answer."""
    return [{"": -2.0, "a": 8.0, "aa": 4.0}[episode.text] for episode in episodes]


def tiny(**options):
    defaults = {
        "prompts": ["a"],
        "reward": value,
        "tokenizer": Letters(1, stop=True),
        "max_new_tokens": 2,
    }
    return TextEnv(**(defaults | options))


# Of the answers "", "a", "aa" in this order: the policy stops half the time, the reference never
# tells its answers apart.
OWN = np.log([1 / 2, 1 / 4, 1 / 4])
REF = np.log([1 / 3, 1 / 3, 1 / 3])
REWARDS = np.array([-2.0, 8.0, 4.0])


def test_all_answers_are_listed_once():
    answers = exact.enumerate_answers(tiny(), "a")
    assert len(answers) == 3
    # 0 is the letter, 1 stops, 2 pads; the prompt is one letter.
    found = {tuple(t): (m.tolist(), r) for t, m, r in zip(*vars(answers).values(), strict=True)}
    assert found == {
        (0, 1, 2): ([False, True, False], -2.0),
        (0, 0, 1): ([False, True, True], 8.0),
        (0, 0, 0): ([False, True, True], 4.0),
    }


def test_longer_prompts_are_not_part_of_the_answer():
    answers = exact.enumerate_answers(tiny(max_prompt_tokens=4), "aaa")
    assert sorted(answers.mask.sum(1)) == [1, 2, 2]
    assert not answers.mask[:, :3].any()


def test_the_count_is_that_of_a_tree():
    """Three letters and a stop, three steps: 27 full answers, and 1 + 3 + 9 that stop earlier."""
    env = tiny(tokenizer=Letters(3, stop=True), reward=lambda es: [0.0] * len(es), max_new_tokens=3)
    answers = exact.enumerate_answers(env, "a")
    assert len(answers) == 27 + 1 + 3 + 9
    assert len({(*t, *m) for t, m in zip(answers.tokens, answers.mask, strict=True)}) == 40


def test_masked_answers_are_not_listed():
    answers = exact.enumerate_answers(tiny(min_new_tokens=1), "a")
    assert sorted(answers.rewards) == [4.0, 8.0]


def test_too_many_answers(monkeypatch):
    monkeypatch.setattr(exact, "TOO_MANY", 39)
    env = tiny(tokenizer=Letters(3, stop=True), reward=lambda es: [0.0] * len(es), max_new_tokens=3)
    with pytest.raises(exact.TooManyAnswersError, match="more than 39 answers to 'a': use fewer"):
        exact.enumerate_answers(env, "a")
    monkeypatch.setattr(exact, "TOO_MANY", 40)
    assert len(exact.enumerate_answers(env, "a")) == 40


def test_by_hand():
    assert exact.expected_return(OWN, REWARDS) == pytest.approx(-1 + 2 + 1)
    # 1/2 log(3/2) + 2 * 1/4 log(3/4)
    kl = math.log(3) - 1.5 * LN2
    assert exact.kl_divergence(OWN, REF) == pytest.approx(kl)
    assert exact.kl_divergence(OWN, OWN) == 0
    assert exact.objective(OWN, REWARDS, REF, 2.0) == pytest.approx(2 - 2 * kl)
    assert exact.total_variation(OWN, REF) == pytest.approx(1 / 6)
    assert exact.total_variation(OWN, OWN) == 0


def test_an_answer_that_is_never_given_has_no_kl():
    assert exact.kl_divergence([0.0, -math.inf], np.log([0.5, 0.5])) == pytest.approx(LN2)


def test_optimum_by_hand():
    # Rewards of 0, log 2, log 3 at beta 1 on a reference of 1/2, 1/4, 1/4: weights 2, 2, 3 of 4.
    rewards = np.log([1.0, 2.0, 3.0])
    best = exact.optimum(OWN, rewards, 1.0)
    np.testing.assert_allclose(np.exp(best), [2 / 7, 2 / 7, 3 / 7])
    # Its objective is beta log Z with Z = 7 / 4.
    assert exact.objective(best, rewards, OWN, 1.0) == pytest.approx(math.log(7 / 4))
    assert exact.regret(best, rewards, OWN, 1.0) == pytest.approx(0, abs=1e-12)
    # Regret is beta KL(pi || optimum).
    expected = 0.5 * exact.kl_divergence(REF, exact.optimum(OWN, rewards, 0.5))
    assert exact.regret(REF, rewards, OWN, 0.5) == pytest.approx(expected)


def test_gradient_weights_by_hand():
    np.testing.assert_allclose(exact.gradient_weights(OWN, REWARDS), [-1, 2, 1])
    # -2 - 2 log(3/2), 8 - 2 log(3/4), 4 - 2 log(3/4), times 1/2, 1/4, 1/4
    up, down = math.log(1.5), math.log(0.75)
    np.testing.assert_allclose(
        exact.gradient_weights(OWN, REWARDS, REF, 2.0),
        [-1 - up, 2 - down / 2, 1 - down / 2],
    )


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits)


numbers = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(np.array)


@given(numbers, numbers, numbers, st.floats(0.1, 3))
def test_gradient_weights_against_finite_differences(logits, ref_logits, rewards, beta):
    """Through a softmax: d log pi_i / d logit_j = [i = j] - pi_j."""
    ref, own = log_softmax(ref_logits), log_softmax(logits)
    weights = exact.gradient_weights(own, rewards, ref, beta)
    gradient = weights - np.exp(own) * weights.sum()
    step = 1e-5
    for j, unit in enumerate(np.eye(4) * step):
        ends = [exact.objective(log_softmax(logits + d), rewards, ref, beta) for d in (unit, -unit)]
        assert gradient[j] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@settings(max_examples=200)
@given(numbers, numbers, numbers, st.floats(0.05, 5))
def test_no_policy_beats_the_optimum(logits, ref_logits, rewards, beta):
    ref, own = log_softmax(ref_logits), log_softmax(logits)
    assert exact.regret(own, rewards, ref, beta) >= -1e-9


@given(numbers, numbers)
def test_total_variation_is_a_distance_of_at_most_1(logits, other):
    p, q = log_softmax(logits), log_softmax(other)
    assert 0 <= exact.total_variation(p, q) <= 1
    assert exact.total_variation(p, q) == pytest.approx(exact.total_variation(q, p))
    # Pinsker's inequality.
    assert exact.total_variation(p, q) ** 2 <= exact.kl_divergence(p, q) / 2 + 1e-12

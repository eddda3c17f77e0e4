"""Values of states and actions: by hand on three answers, and against sums over all answers."""

import numpy as np
import pytest
from letters import Letters

from textenv import TextEnv
from textenv.testing import exact
from textenv.testing.exact_values import exact_values


def value(episodes):
    """8 for "a", 4 for "aa", -2 for the empty answer."""
    return [{"": -2.0, "a": 8.0, "aa": 4.0}[episode.text] for episode in episodes]


@pytest.fixture(scope="module")
def three():
    env = TextEnv(prompts=["a"], reward=value, tokenizer=Letters(1, stop=True), max_new_tokens=2)
    return exact.enumerate_answers(env, "a")


def halves(answers):
    return np.where(answers.mask, np.log(0.5), 0.0)


def test_values_by_hand(three):
    found = exact_values(three, halves(three))
    # Behind "a" the agent may stop, the id 1, or write the letter, the id 0, and end so.
    assert found.states == {(0, 0): 6.0, (0,): 2.0}
    assert found.actions == {(0, 0): {1: 8.0, 0: 4.0}, (0,): {1: -2.0, 0: 6.0}}
    rows = {tuple(row): place for place, row in enumerate(three.tokens.tolist())}
    before, chosen = found.before(three), found.of_chosen(three)
    assert before[rows[0, 1, 2]].tolist() == [0, 2, 0]
    assert before[rows[0, 0, 1]].tolist() == [0, 2, 6]
    assert chosen[rows[0, 0, 0]].tolist() == [0, 6, 4]


def test_a_discount_counts_steps(three):
    found = exact_values(three, halves(three), gamma=0.5)
    assert found.states[0, 0] == 6 and found.actions[0,][0] == 3 and found.states[0,] == 0.5


@pytest.fixture(scope="module")
def many():
    rewards = np.random.default_rng(0).normal(size=1_000)
    numbers = {}

    def drawn(episodes):
        return [rewards[numbers.setdefault(e.text, len(numbers))] for e in episodes]

    env = TextEnv(prompts=["a"], reward=drawn, tokenizer=Letters(3, stop=True), max_new_tokens=3)
    return exact.enumerate_answers(env, "a")


def random_policy(answers, seed):
    """Log-probabilities of the chosen tokens under a policy of random numbers, shape (n, L)."""
    rng = np.random.default_rng(seed)
    table = {}
    found = np.zeros(answers.tokens.shape)
    for row, place in zip(*np.nonzero(answers.mask), strict=True):
        state = tuple(answers.tokens[row, :place])
        if state not in table:
            logits = rng.normal(size=4)
            table[state] = logits - np.logaddexp.reduce(logits)
        found[row, place] = table[state][answers.tokens[row, place]]
    return found


def test_the_first_value_is_the_expected_return(many):
    logprobs = random_policy(many, 1)
    found = exact_values(many, logprobs)
    expected = exact.expected_return(logprobs.sum(1), many.rewards)
    assert found.states[0,] == pytest.approx(expected)


def test_a_state_is_worth_the_mean_of_the_answers_behind_it(many):
    logprobs = random_policy(many, 2)
    found = exact_values(many, logprobs)
    whole = np.exp(logprobs.sum(1))
    for state, worth in found.states.items():
        behind = (many.tokens[:, : len(state)] == state).all(1) & many.mask[:, len(state)]
        weights = whole[behind] / whole[behind].sum()
        assert worth == pytest.approx(weights @ many.rewards[behind])


@pytest.mark.parametrize("beta", [0.2, 2.0])
def test_soft_values_are_those_of_the_optimum(many, beta):
    ref = random_policy(many, 3)
    found = exact_values(many, ref, beta=beta)
    log_z = np.logaddexp.reduce(ref.sum(1) + many.rewards / beta)
    assert found.states[0,] == pytest.approx(beta * log_z)
    # The policy that is optimal for Q: pi(a|s) = ref(a|s) exp((Q(s, a) - V(s)) / beta).
    best = ref + np.where(many.mask, (found.of_chosen(many) - found.before(many)) / beta, 0.0)
    optimum = exact.optimum(ref.sum(1), many.rewards, beta)
    assert exact.total_variation(best.sum(1), optimum) < 1e-9


def test_what_is_no_policy_is_refused(many):
    with pytest.raises(ValueError, match="sum to"):
        exact_values(many, random_policy(many, 1) - 0.1 * many.mask)
    with pytest.raises(ValueError, match="have shape"):
        exact_values(many, np.zeros(3))

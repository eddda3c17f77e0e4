"""All conversations of tiny worlds, by hand and by independent sums."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import Letters

from textenv import BatchedWorld, Reply, TextEnv, World
from textenv.errors import WorldError
from textenv.testing import exact
from textenv.testing.branches import Draws, Ways

OPTIONS = {
    "tokenizer": Letters(2),
    "stop_tokens": [],
    "max_prompt_tokens": 1,
    "max_turn_tokens": 1,
    "max_new_tokens": 4,
}
A, B, PAD = 0, 1, 2


class Coin(World):
    """Says a letter, the turn's own with 1/4, and ends the episode after the second turn.

    1 for a first b, and 10, 20, 30, 40 for a second turn: by its letter, and by the world's.
    """

    def begin(self, record, rng):
        return "a"

    def reply(self, turn, rng):
        if turn.number == 1:
            p = (1 / 4, 3 / 4) if turn.text == "a" else (3 / 4, 1 / 4)
            self.said = str(rng.choice(["a", "b"], p=p))
            return Reply(self.said, reward=float(turn.text == "b"))
        pair = "ab".index(turn.text) + 2 * "ab".index(self.said)
        return Reply(reward=10.0 * (pair + 1), terminated=True)


def listed(talks):
    """From the letters of the text to probability, return, turns and rewards."""
    return {
        "".join("ab"[i] for i in tokens if i != PAD): (
            float(np.exp(logprob)),
            float(total),
            turns[tokens != PAD].tolist(),
            rewards[tokens != PAD].tolist(),
        )
        for tokens, total, turns, rewards, logprob in zip(
            *(talks.tokens, talks.rewards, talks.turns, talks.token_rewards, talks.world_logprobs),
            strict=True,
        )
    }


def test_all_conversations_are_listed_once():
    talks = exact.enumerate_conversations(Coin, **OPTIONS)
    turns = [-1, 1, -1, 2]
    expected = {
        "aaaa": (1 / 4, 10.0, turns, [0, 0, 0, 10]),
        "aaab": (1 / 4, 20.0, turns, [0, 0, 0, 20]),
        "aaba": (3 / 4, 30.0, turns, [0, 0, 0, 30]),
        "aabb": (3 / 4, 40.0, turns, [0, 0, 0, 40]),
        "abaa": (3 / 4, 11.0, turns, [0, 1, 0, 10]),
        "abab": (3 / 4, 21.0, turns, [0, 1, 0, 20]),
        "abba": (1 / 4, 31.0, turns, [0, 1, 0, 30]),
        "abbb": (1 / 4, 41.0, turns, [0, 1, 0, 40]),
    }
    found = listed(talks)
    assert found.keys() == expected.keys() and len(talks) == 8
    for text, (probability, *others) in expected.items():
        assert found[text][0] == pytest.approx(probability) and list(found[text][1:]) == others
    assert (talks.mask == (talks.turns > 0)).all()


def test_the_optimum_by_another_way():
    """As sums over arrays with an axis for each choice: [first turn, reply, second turn]."""
    talks = exact.enumerate_conversations(Coin, **OPTIONS)
    beta = 7.0
    rng = np.random.default_rng(0)
    first, second = rng.dirichlet([1, 1]), rng.dirichlet([1, 1], size=(2, 2))
    replies = np.array([[1 / 4, 3 / 4], [3 / 4, 1 / 4]])
    paid = np.array([0, 1])[:, None, None] + np.array([[10, 20], [30, 40]])
    tilted = second * np.exp(paid / beta)
    best_second = tilted / tilted.sum(2, keepdims=True)
    of_replies = beta * np.log(tilted.sum(2))
    best_first = first * np.exp((replies * of_replies).sum(1) / beta)
    best_first = best_first / best_first.sum()
    expected = best_first[:, None, None] * replies[..., None] * best_second

    places = talks.tokens[:, 1], talks.tokens[:, 2], talks.tokens[:, 3]
    ref = np.zeros(talks.tokens.shape)
    ref[:, 1], ref[:, 3] = np.log(first)[places[0]], np.log(second)[places]
    found = exact.soft_optimum(talks, ref, beta)
    np.testing.assert_allclose(np.exp(found), expected[places])
    # Its objective is the soft value of the beginning.
    total = exact.objective(found, talks.rewards, talks.world_logprobs + ref.sum(1), beta)
    start = beta * np.log((first * np.exp((replies * of_replies).sum(1) / beta)).sum())
    assert total == pytest.approx(start)


# --- any world, any policy ------------------------------------------------------------------------


class Anything(World):
    """Draws a secret that it keeps, says nothing or one or two letters, ends when it likes."""

    table = np.random.default_rng(3).normal(size=(2, 200))

    def begin(self, record, rng):
        self.secret = int(rng.integers(2))
        self.heard = 1
        return str(rng.choice(["a", "b"]))

    def reply(self, turn, rng):
        self.heard = (3 * self.heard + len(turn.text) + ord(turn.text[0])) % 200
        reward = float(self.table[self.secret, self.heard])
        if turn.number == 1 and rng.choice([True, False], p=[1 / 3, 2 / 3]):
            return Reply(reward=reward, terminated=True)
        words = rng.choice(["", "a", "bb", "ab"], p=[1 / 2, 0, 1 / 3, 1 / 6])
        return Reply(str(words), reward)


RICH = OPTIONS | {"max_turns": 2, "max_turn_tokens": 2, "max_new_tokens": 7}
TALKS = exact.enumerate_conversations(Anything, **RICH)


def policy_over(talks, seed, scale=1.0):
    """Log-probabilities of a tabular policy, (n, L): one row of logits for each text."""
    tables = {}
    rng = np.random.default_rng(seed)
    logprobs = np.zeros(talks.tokens.shape)
    for row, (tokens, mask) in enumerate(zip(talks.tokens, talks.mask, strict=True)):
        for place in np.flatnonzero(mask):
            text = tuple(tokens[:place])
            if text not in tables:
                logits = scale * rng.normal(size=2)
                tables[text] = logits - np.logaddexp.reduce(logits)
            logprobs[row, place] = tables[text][tokens[place]]
    return logprobs


def test_texts_are_listed_once_whatever_the_world_keeps_to_itself():
    texts = {
        tokens.tobytes() + mask.tobytes()
        for tokens, mask in zip(TALKS.tokens, TALKS.mask, strict=True)
    }
    assert len(texts) == len(TALKS) > 100
    assert (TALKS.token_rewards[~TALKS.mask] == 0).all()
    np.testing.assert_allclose(TALKS.token_rewards.sum(1), TALKS.rewards)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_probabilities_sum_to_one_under_every_policy(seed):
    logprobs = TALKS.world_logprobs + policy_over(TALKS, seed).sum(1)
    assert np.logaddexp.reduce(logprobs) == pytest.approx(0, abs=1e-9)


def test_the_expected_return_is_that_of_play():
    """Of uniform play, with the generators that the environment gives."""
    uniform = TALKS.world_logprobs + math.log(1 / 2) * TALKS.mask.sum(1)
    env, rng = TextEnv(world=Anything, **RICH), np.random.default_rng(0)
    totals = []
    for episode in range(1000):
        env.reset(seed=0 if episode == 0 else None)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(int(rng.integers(2)))
            total, over = total + reward, terminated or truncated
        totals.append(total)
    error = np.std(totals) / len(totals) ** 0.5
    assert abs(np.mean(totals) - exact.expected_return(uniform, TALKS.rewards)) < 3 * error


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.1, 3))
def test_no_policy_beats_the_optimum(seed, other, beta):
    ref = policy_over(TALKS, seed)
    whole = TALKS.world_logprobs + ref.sum(1)
    best = exact.soft_optimum(TALKS, ref, beta)
    assert np.logaddexp.reduce(best) == pytest.approx(0, abs=1e-9)
    highest = exact.objective(best, TALKS.rewards, whole, beta)
    challenger = TALKS.world_logprobs + policy_over(TALKS, other).sum(1)
    for policy in (challenger, whole):
        assert exact.objective(policy, TALKS.rewards, whole, beta) <= highest + 1e-9


def test_the_exact_gradient_leads_to_the_optimum():
    """Gradient ascent on tables of logits, which knows nothing of values."""
    beta, ref = 0.5, policy_over(TALKS, 1)
    whole = TALKS.world_logprobs + ref.sum(1)
    best = exact.soft_optimum(TALKS, ref, beta)
    places = [
        (row, place, (tuple(tokens[:place])), tokens[place])
        for row, (tokens, mask) in enumerate(zip(TALKS.tokens, TALKS.mask, strict=True))
        for place in np.flatnonzero(mask)
    ]
    texts = {text: number for number, text in enumerate(dict.fromkeys(p[2] for p in places))}
    rows, at, node, token = (
        np.array(x) for x in zip(*((r, p, texts[t], a) for r, p, t, a in places), strict=True)
    )
    logits = np.zeros((len(texts), 2))
    for row, place, text, action in zip(rows, at, node, token, strict=True):
        logits[text, action] = ref[row, place]
    for _ in range(4000):
        tables = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        own = TALKS.world_logprobs.copy()
        np.add.at(own, rows, tables[node, token])
        weights = exact.gradient_weights(own, TALKS.rewards, whole, beta)[rows]
        reach = np.zeros(len(texts))
        np.add.at(reach, node, np.exp(own)[rows])
        gradient = np.zeros_like(logits)
        np.add.at(gradient, (node, token), weights)
        # d log pi(a) / d logit_b = [a = b] - pi(b)
        sums = np.zeros(len(texts))
        np.add.at(sums, node, weights)
        gradient -= np.exp(tables) * sums[:, None]
        logits += gradient / reach[:, None]  # as far for texts that are seldom reached
    assert exact.total_variation(own, whole) > 0.2
    assert exact.total_variation(own, best) < 1e-6
    highest = exact.objective(best, TALKS.rewards, whole, beta)
    assert exact.objective(own, TALKS.rewards, whole, beta) == pytest.approx(highest)
    # Whole texts tilted, the world's words too, would be better still: nobody can have that.
    tilted = exact.optimum(whole, TALKS.rewards, beta)
    assert exact.total_variation(tilted, best) > 0.05
    assert exact.objective(tilted, TALKS.rewards, whole, beta) > highest + 0.01


class Echo(World):
    """Draws nothing."""

    def begin(self, record, rng):
        return record["prompt"]

    def reply(self, turn, rng):
        said = sum(map(ord, turn.text)) + 7 * turn.number
        return Reply(turn.text[::-1], reward=float(np.sin(said)), terminated=turn.number == 2)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 3))
def test_where_the_world_draws_nothing_it_is_the_closed_form(seed, beta):
    talks = exact.enumerate_conversations(Echo, "b", **RICH)
    assert (
        len(talks) == 16 and (talks.world_logprobs == 0).all() and (talks.tokens[:, 0] == B).all()
    )
    ref = policy_over(talks, seed)
    best = exact.soft_optimum(talks, ref, beta)
    np.testing.assert_allclose(best, exact.optimum(ref.sum(1), talks.rewards, beta), atol=1e-9)


def test_a_hidden_draw_is_averaged():
    class Guess(World):
        """Pays for the letter that it has drawn and says nothing of."""

        def begin(self, record, rng):
            self.right = "ab"[rng.choice(2, p=[0.3, 0.7])]
            return "a"

        def reply(self, turn, rng):
            return Reply(reward=float(turn.text == self.right), terminated=True)

    talks = exact.enumerate_conversations(Guess, **OPTIONS)
    assert len(talks) == 2
    np.testing.assert_allclose(talks.rewards, [0.3, 0.7])
    np.testing.assert_allclose(talks.world_logprobs, 0, atol=1e-12)


class Both(BatchedWorld):
    """One object for all rows."""

    def begin(self, rows, records, rngs):
        return ["a"] * len(rows)

    def reply(self, rows, turns, rngs):
        return [Reply("ab"[rng.integers(2)], 1.0) for rng in rngs]


def test_batched_worlds_and_masks():
    talks = exact.enumerate_conversations(
        Both(), **OPTIONS | {"forbidden_tokens": [B], "max_turns": 2}
    )
    assert {text[1::2] for text in listed(talks)} == {"aa"} and len(talks) == 2
    np.testing.assert_allclose(np.exp(talks.world_logprobs), 1 / 2)


# --- what cannot be listed ------------------------------------------------------------------------


def replying(reply):
    return type("Replying", (Coin,), {"reply": lambda self, turn, rng: reply(rng)})


def test_draws_that_cannot_be_counted_are_refused_by_name():
    world = replying(lambda rng: Reply(reward=rng.random(), terminated=True))
    with pytest.raises(WorldError, match=r"rng\.random cannot be listed .* rng\.choice"):
        exact.enumerate_conversations(world, **OPTIONS)


def test_a_world_that_fails_is_no_end_of_an_episode():
    world = replying(lambda rng: {}["lost"])
    with pytest.raises(WorldError, match=r"Replying\.reply raised KeyError: 'lost'"):
        exact.enumerate_conversations(world, **OPTIONS)


def test_chance_from_elsewhere_is_found_out():
    count = iter(range(1000))
    world = replying(lambda rng: Reply("ab"[rng.integers(2 + next(count) % 3) % 2]))
    with pytest.raises(WorldError, match="the same draws led to"):
        exact.enumerate_conversations(world, **OPTIONS)


def test_too_many_conversations(monkeypatch):
    monkeypatch.setattr(exact, "TOO_MANY", 7)
    with pytest.raises(exact.TooManyAnswersError, match="more than 7 conversations: use fewer"):
        exact.enumerate_conversations(Coin, **OPTIONS)
    monkeypatch.setattr(exact, "TOO_MANY", 8)
    assert len(exact.enumerate_conversations(Coin, **OPTIONS)) == 8


# --- draws ----------------------------------------------------------------------------------------


def outcomes(draw):
    ways, found = Ways(), []
    while ways.more():
        draws = Draws(ways)
        outcome = draw(draws)
        found.append((np.asarray(outcome).tolist(), math.exp(draws.logprob)))
    assert sum(p for _, p in found) == pytest.approx(1)
    return found


def test_draws_have_the_values_of_a_generators():
    assert [x for x, _ in outcomes(lambda rng: rng.integers(3))] == [0, 1, 2]
    assert [x for x, _ in outcomes(lambda rng: rng.integers(2, 4))] == [2, 3]
    assert [x for x, _ in outcomes(lambda rng: rng.integers(2, 4, endpoint=True))] == [2, 3, 4]
    assert [x for x, _ in outcomes(lambda rng: rng.choice(["x", "y"]))] == ["x", "y"]
    assert len(outcomes(lambda rng: rng.integers(3, size=(2, 2)))) == 81
    assert outcomes(lambda rng: rng.choice(3, p=[0.5, 0, 0.5])) == [(0, 0.5), (2, 0.5)]
    pairs = dict((tuple(x), p) for x, p in outcomes(lambda rng: rng.choice(2, 2, p=[0.1, 0.9])))
    assert pairs[(1, 0)] == pytest.approx(0.09)
    assert outcomes(lambda rng: None) == [(None, 1.0)]


def test_later_draws_may_depend_on_earlier_ones():
    found = outcomes(lambda rng: [int(n := rng.integers(1, 4)), int(rng.integers(n))])
    assert [x for x, _ in found] == [[1, 0], [2, 0], [2, 1], [3, 0], [3, 1], [3, 2]]
    assert [p for _, p in found] == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9])

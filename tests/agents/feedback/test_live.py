"""A live reward by hand, given by scripts in place of people."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from letters import Letters

from agents.feedback.from_people.live import (
    Biased,
    Greedy,
    HumanReward,
    Press,
    Watched,
    append_watched,
    credit,
    live_session,
    read_watched,
)
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import MalformedRecordError

torch.set_num_threads(1)


def make_policy(letters=4, stop=False):
    tokenizer = Letters(letters, stop)
    shape = TransformerConfig(tokenizer.vocab_size, 40, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, tokenizer=tokenizer, seed=0)


class Script:
    """A person with a clock of their own, who likes some letters and reacts after a while."""

    def __init__(self, likes, reaction=0.5):
        self.likes, self.reaction = likes, reaction
        self.now, self.waiting, self.seen = 0.0, [], []

    def clock(self):
        return self.now

    def watch(self, text, seconds):
        self.seen.append(text)
        about = seconds is None or (text and not text.startswith("\n"))
        if about and (reward := self.likes(text)):
            self.waiting.append(Press(self.now + self.reaction, reward))
        if seconds is None:
            pressed, self.waiting = self.waiting, []
            return pressed
        self.now += seconds
        pressed = [press for press in self.waiting if press.at <= self.now]
        self.waiting = [press for press in self.waiting if press.at > self.now]
        return pressed


def b_not_c(text):
    return {"b": 1, "c": -1}.get(text, 0)


# -------------------------------------------------------------------- credit


def test_credit_by_hand():
    # A key at 2.0 with delays from 0.2 to 0.8 is about what was shown from 1.2 to 1.8.
    np.testing.assert_allclose(credit([0, 1, 1.5, 1.9], 2.5, 2.0), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(credit([0, 1.4], 2.5, 2.0), [1 / 3, 2 / 3])
    np.testing.assert_allclose(credit([1.6], 2.5, 2.0), [1 / 3])  # the rest was before
    np.testing.assert_allclose(credit([0], 1.0, 2.0), [0])
    np.testing.assert_allclose(credit([0, 1], 2.0, 2.0, (0.0, 1.0)), [0, 1])


@given(
    gaps=st.lists(st.floats(0.05, 2), min_size=1, max_size=8),
    late=st.floats(0, 3),
    least=st.floats(0, 1),
    width=st.floats(0.1, 2),
)
def test_shares_are_probabilities_of_the_delay(gaps, late, least, width):
    """Against sampled delays: whichever token was the last one when the key was meant."""
    shown = np.cumsum([0.0, *gaps])
    end, delay = shown[-1] + 1, (least, least + width)
    at = shown[-1] + late
    shares = credit(shown, end, at, delay)
    assert (shares >= 0).all() and shares.sum() <= 1 + 1e-9
    meant = at - np.linspace(*delay, 4001)
    places = np.searchsorted(shown, meant, side="right") - 1
    inside = (meant >= 0) & (meant < end)
    found = np.array([((places == k) & inside).mean() for k in range(len(shown))])
    np.testing.assert_allclose(shares, found, atol=2e-3)


# -------------------------------------------------------------------- H


def test_h_is_fitted_to_what_was_said():
    policy = make_policy()
    model = HumanReward(policy)
    hidden = policy.last_hidden(np.array([[0, 1], [2, 3]])).clone()
    assert (model.of_all(hidden) == 0).all()
    tokens, rewards = torch.tensor([1, 2]), torch.tensor([1.0, -1.0])
    for _ in range(20):
        error = model.fit(hidden, tokens, rewards, torch.tensor([1.0, 0.5]))
    assert error < 1e-3
    said = model.of_all(hidden)[[0, 1], [1, 2]]
    torch.testing.assert_close(said, rewards, atol=0.05, rtol=0)
    assert all(not p.requires_grad for p in model.trunk.parameters())


def test_choosing_by_h():
    logits, rewards = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0, 5.0])
    generator = np.random.default_rng(0)
    assert Greedy(among=3)(logits, rewards, generator) == 1  # the likelier of two
    assert Greedy()(logits, rewards, generator) == 3
    draws = [Biased(strength=1, temperature=2)(logits, rewards, generator) for _ in range(4000)]
    expected = (logits / 2 + rewards).softmax(0)
    np.testing.assert_allclose(np.bincount(draws) / 4000, expected, atol=0.02)


def test_h_as_a_dense_reward_and_on_disk(tmp_path):
    policy = make_policy(stop=True)
    model = HumanReward(policy)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    envs = TextVectorEnv(
        3,
        prompts=["ab", "c"],
        reward=model.as_reward(),
        tokenizer=policy.tokenizer,
        max_new_tokens=4,
    )
    observations, _ = envs.reset(seed=0)
    generator = np.random.default_rng(1)
    for _ in range(8):
        actions = generator.integers(0, 5, 3)
        rows = [row[row < 5] for row in observations]
        expected = [
            model.of_all(model.trunk.last_hidden(row[None]))[0, action].item()
            for row, action in zip(rows, actions, strict=True)
        ]
        observations, rewards, *_ = envs.step(actions)
        np.testing.assert_allclose(rewards, expected, atol=1e-5)
    model.save(tmp_path)
    from agents.feedback.from_people import live

    live.load_policy = lambda folder: policy  # its vocabulary is known to this test alone
    try:
        again = HumanReward.load(tmp_path)
    finally:
        from policies import load_policy

        live.load_policy = load_policy
    torch.testing.assert_close(again.head.weight, model.head.weight)


# -------------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    ("reaction", "choose", "at_least"),
    [(0.3, Greedy(among=4), 0.9), (0.7, Greedy(among=4), 0.9), (0.5, Biased(strength=5), 0.7)],
)
def test_a_person_teaches_a_letter_while_it_writes(reaction, choose, at_least):
    policy = make_policy()
    sessions = live_session(
        HumanReward(policy),
        policy,
        ["a", "b", "c", "d"] * 2,
        Script(b_not_c, reaction),
        seconds_per_token=0.5,
        max_new_tokens=12,
        choose=choose,
    )
    texts = [watched.text for watched in sessions]
    assert len(texts) == 8 and all(len(text) == 12 for text in texts)
    last = "".join(texts[-2:])
    assert texts[0].count("b") < 9
    assert last.count("b") >= at_least * len(last) and last.count("c") < 0.1 * len(last)


def test_whole_answers_are_rewarded_by_one_key():
    policy = make_policy(stop=True)
    person = Script(lambda text: 1 if text.count("b") > 1 else -1)
    sessions = live_session(
        HumanReward(policy),
        policy,
        ["a", "b", "c", "d"] * 5,
        person,
        seconds_per_token=None,
        max_new_tokens=5,
    )
    watched = list(sessions)
    assert all(set(one.weights) == {1.0} and len(set(one.rewards)) == 1 for one in watched)
    liked = [one.rewards[0] for one in watched]
    assert liked[:2] == [-1, -1] and np.mean(liked[-10:]) > 0.5


def test_keys_about_the_last_tokens_still_count():
    policy = make_policy()
    person = Script(lambda text: 1, reaction=0.7)
    (watched,) = live_session(
        HumanReward(policy), policy, ["a"], person, seconds_per_token=0.5, max_new_tokens=3
    )
    assert watched.rewards == watched.weights == pytest.approx([1.0, 1.0, 5 / 6])
    assert person.seen[-1] == ""


def test_silence_teaches_nothing():
    policy = make_policy()
    model = HumanReward(policy)
    list(live_session(model, policy, ["a", "b"], Script(lambda text: 0), max_new_tokens=4))
    assert (model.head.weight == 0).all() and (model.head.bias == 0).all()


def test_earlier_sessions_are_learned_again(tmp_path):
    policy = make_policy()
    path = tmp_path / "watched.jsonl"
    assert read_watched(path) == []
    # Every letter was written behind many texts, and the likeliest one was disliked.
    (unknown,) = live_session(
        HumanReward(policy), policy, ["a"], Script(lambda text: 0), choose=Greedy(4)
    )
    liked = next(letter for letter in "abcd" if letter not in unknown.text)
    for seed in range(4):
        tokens = np.random.default_rng(seed).integers(0, 4, 30).tolist()
        text = "".join("abcd"[token] for token in tokens)
        rewards = [1.0 if letter == liked else -1.0 for letter in text]
        watched = Watched("abcd"[seed], text, tokens, rewards, [1.0] * 30)
        append_watched(path, watched)
    earlier = read_watched(path)
    assert len(earlier) == 4 and earlier[-1] == watched
    (taught,) = live_session(
        HumanReward(policy),
        policy,
        ["a"],
        Script(lambda text: 0),
        earlier=earlier,
        choose=Greedy(4),
    )
    assert taught.text == liked * 32
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(MalformedRecordError, match="not of an answer"):
        read_watched(path)
    assert Watched.from_record(watched.to_record()) == watched


@pytest.mark.parametrize("said", [0, 1])
def test_what_was_said_of_an_unfinished_answer_is_kept(said):
    class Leaves(Script):
        def watch(self, text, seconds):
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            return super().watch(text, seconds)

    policy, kept = make_policy(), []
    session = live_session(HumanReward(policy), policy, ["a", "b"], Leaves(lambda text: said))
    with pytest.raises(KeyboardInterrupt):
        for one in session:
            kept.append(one)
    assert len(kept) == said and all(sum(one.rewards) > 0 for one in kept)

"""A live reward by hand, given by scripts in place of people."""

import itertools

import numpy as np
import pytest
import torch
from letters import Letters

from agents.feedback.from_people.action_selection import Biased, Greedy
from agents.feedback.from_people.human_reward import HumanReward
from agents.feedback.from_people.key_credit import Press
from agents.feedback.from_people.live import live_session
from agents.feedback.from_people.watched import Watched, append_watched, read_watched
from policies import TransformerConfig, TransformerPolicy
from textenv import Reply, TextEnv, World
from textenv.errors import MalformedRecordError, WorldError
from textenv.frames import ChatTemplate

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


def answers(model, policy, prompts, person, max_new_tokens=32, **options):
    """A session in which texts are answered."""
    env = TextEnv(
        prompts=prompts,
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=policy.tokenizer,
        max_new_tokens=max_new_tokens,
    )
    return live_session(model, policy, env, person, prompts=prompts, **options)


@pytest.mark.parametrize(
    ("reaction", "choose", "at_least"),
    [(0.3, Greedy(among=4), 0.9), (0.7, Greedy(among=4), 0.9), (0.5, Biased(strength=5), 0.7)],
)
def test_a_person_teaches_a_letter_while_it_writes(reaction, choose, at_least):
    policy = make_policy()
    sessions = answers(
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
    sessions = answers(
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
    (watched,) = answers(
        HumanReward(policy), policy, ["a"], person, seconds_per_token=0.5, max_new_tokens=3
    )
    assert watched.rewards == watched.weights == pytest.approx([1.0, 1.0, 5 / 6])
    assert person.seen[-1] == ""


def test_silence_teaches_nothing():
    policy = make_policy()
    model = HumanReward(policy)
    list(answers(model, policy, ["a", "b"], Script(lambda text: 0), max_new_tokens=4))
    assert (model.head.weight == 0).all() and (model.head.bias == 0).all()


def test_earlier_sessions_are_learned_again(tmp_path):
    policy = make_policy()
    path = tmp_path / "watched.jsonl"
    assert read_watched(path) == []
    # Every letter was written behind many texts, and the likeliest one was disliked.
    (unknown,) = answers(
        HumanReward(policy), policy, ["a"], Script(lambda text: 0), choose=Greedy(4)
    )
    liked = next(letter for letter in "abcd" if letter not in unknown.text)
    for seed in range(4):
        tokens = np.random.default_rng(seed).integers(0, 4, 30).tolist()
        text = "".join("abcd"[token] for token in tokens)
        rewards = [1.0 if letter == liked else -1.0 for letter in text]
        watched = Watched("abcd"[seed], [seed], text, tokens, rewards, [1.0] * 30)
        append_watched(path, watched)
    earlier = read_watched(path)
    assert len(earlier) == 4 and earlier[-1] == watched
    (taught,) = answers(
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
    session = answers(HumanReward(policy), policy, ["a", "b"], Leaves(lambda text: said))
    with pytest.raises(KeyboardInterrupt):
        for one in session:
            kept.append(one)
    assert len(kept) == said and all(sum(one.rewards) > 0 for one in kept)


# -------------------------------------------------------------------- dialogues and worlds


class Counts(World):
    """Says how long each turn was, and ends with the second."""

    def begin(self, record, rng):
        return "d"

    def reply(self, turn, rng):
        return Reply("ad"[len(turn.tokens) % 2], terminated=turn.number == 2)


class Says:
    """Chooses given ids, whatever the policy and H say."""

    def __init__(self, *ids):
        self.ids = iter(ids)

    def __call__(self, logits, rewards, generator):
        return next(self.ids)


def test_turns_are_watched_and_replies_between_them_earn_nothing():
    """By hand: half a second a token, 0.8 seconds behind a turn, keys 0.7 seconds late."""
    policy, stop = make_policy(stop=True), 4
    env = TextEnv(world=Counts, tokenizer=policy.tokenizer, max_prompt_tokens=4, max_new_tokens=24)
    person, model = Script(b_not_c, reaction=0.7), HumanReward(policy)
    choose = Says(1, 0, stop, 2, stop)
    session = live_session(model, policy, env, person, choose=choose)
    one = next(session)
    assert one.prompt == "d" and one.prompt_tokens == [3]
    assert one.tokens == [1, 0, stop, 3, 2, stop] and one.text == "ba\nd\nc"
    assert person.seen == ["\n\nd", "b", "a", "", "", "\nd\n", "c", "", ""]
    # A key at 0.7 is about -0.1 to 0.5: five sixths of that is the first token's.
    assert one.weights == pytest.approx([5 / 6, 0, 0, 0, 5 / 6, 0])
    assert one.rewards == pytest.approx([5 / 6, 0, 0, 0, -5 / 6, 0])
    hidden = policy.last_hidden(np.array([[3], [2]]))
    liked = model.of_all(hidden)[0]
    assert liked[1] > 0 > liked[2]  # the same frozen network: what was learned is about both


def test_a_key_for_each_turn():
    policy = make_policy(stop=True)
    env = TextEnv(world=Counts, tokenizer=policy.tokenizer, max_prompt_tokens=4, max_new_tokens=24)
    keys = iter([1, -1] * 3)
    session = live_session(
        HumanReward(policy), policy, env, Script(lambda text: next(keys)), seconds_per_token=None
    )
    for one in itertools.islice(session, 3):
        (reply,) = (i for i, weight in enumerate(one.weights) if not weight)
        after = len(one.tokens) - reply - 1
        assert one.rewards == [1] * reply + [0] + [-1] * after and reply and after


def test_a_dialogue_is_read_through_the_frame_and_masks_hold():
    policy = make_policy(stop=True)
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    env = TextEnv(
        prompts=[{"prompt": said}],
        reward=lambda episodes: [0.0],
        frame=ChatTemplate(user="d{content}d", answer="{content}", between=""),
        tokenizer=policy.tokenizer,
        max_new_tokens=4,
        allowed_tokens=[0, 1],
    )
    person = Script(lambda text: 1 if text == "b" else 0)
    session = live_session(HumanReward(policy), policy, env, person, choose=Greedy(5))
    one, two, *_ = itertools.islice(session, 6)
    assert one.prompt_tokens == [3, 0, 3, 1, 4, 3, 2, 3]  # 4 ends the answer before
    assert one.prompt == said and person.seen[0].startswith("\n\nUser: a\n\nAssistant: b")
    assert set(one.tokens) | set(two.tokens) <= {0, 1, 4}


def test_a_world_that_fails_is_told_and_what_was_said_is_kept():
    class Fails(Counts):
        def reply(self, turn, rng):
            raise RuntimeError("gone")

    policy, kept = make_policy(stop=True), []
    env = TextEnv(world=Fails, tokenizer=policy.tokenizer, max_prompt_tokens=4, max_new_tokens=6)
    session = live_session(HumanReward(policy), policy, env, Script(lambda text: 1, 0.3))
    with pytest.raises(WorldError, match="gone"):
        for one in session:
            kept.append(one)
    assert len(kept) == 1 and sum(kept[0].rewards) > 0

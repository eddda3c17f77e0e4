"""What a dense reward sees: records, texts and turns, and that they cost nothing unread."""

import numpy as np
import pytest
from environments import vector
from episodes import step_batch

from textenv import Prompt, Reply, TextVectorEnv, World
from textenv.frames import ChatTemplate
from textenv.reward_trial import try_reward
from textenv.rewards import dense, weighted
from textenv.tokenizers import BytesTokenizer

STOP = BytesTokenizer().stop_token
SUMS = [{"prompt": "2+2=", "answer": "4"}, {"prompt": "3+4=", "answer": "7"}]


def closer(batch):
    """Pays in the step in which the answer so far becomes the right one."""
    return [
        float(text == record["answer"])
        for text, record in zip(batch.texts, batch.records, strict=True)
    ]


def test_a_dense_reward_knows_the_right_answer():
    envs = vector(2, reward=dense(closer), max_prompt_tokens=8)
    envs.reset(options={"prompt": SUMS})
    paid = [envs.step([ord(a), ord(b)])[1].tolist() for a, b in ("47", "x7")]
    assert paid == [[1.0, 1.0], [0.0, 0.0]]


def test_records_and_texts_are_those_of_the_rows_that_moved():
    seen = []

    def watch(batch):
        texts = zip(batch.records, batch.texts, batch.stopped.tolist(), strict=True)
        seen.append(list(texts))
        return np.zeros(len(batch))

    envs = vector(2, reward=dense(watch), autoreset_mode="Disabled", prompts=SUMS)
    envs.reset(options={"prompt": SUMS})
    envs.step([ord("4"), STOP])
    envs.reset(options={"prompt": ["new"], "reset_mask": np.array([False, True])})
    envs.step([ord("2"), ord("!")])
    envs.step([STOP, ord("?")])
    envs.reset(options={"prompt": SUMS[0], "reset_mask": np.array([True, False])})
    envs.step([ord("4"), STOP])
    first, second = SUMS
    assert seen == [
        [(first, "4", False), (second, "", True)],
        [(first, "42", False), ({"prompt": "new"}, "!", False)],
        [(first, "42", True), ({"prompt": "new"}, "!?", False)],
        [(first, "4", False), ({"prompt": "new"}, "!?", True)],
    ]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_row_that_only_restarts_is_not_told_of(mode):
    seen = []

    def watch(batch):
        seen.append(list(zip([r["prompt"] for r in batch.records], batch.texts, strict=True)))
        return np.zeros(len(batch))

    envs = vector(2, reward=dense(watch), autoreset_mode=mode, prompts=["p"])
    envs.reset(seed=0)
    for actions in ([ord("a"), STOP], [ord("b"), ord("c")], [ord("d"), ord("e")]):
        envs.step(actions)
    later = [[("p", "ab")], [("p", "abd"), ("p", "e")]]
    if mode == "SameStep":
        later = [[("p", "ab"), ("p", "c")], [("p", "abd"), ("p", "ce")]]
    assert seen == [[("p", "a"), ("p", "")], *later]


def test_the_text_of_ids_and_of_half_a_character_is_that_of_the_episode():
    """Byte by byte: prompt and answer together are the text of all ids."""
    letter = "é".encode()
    seen, ends = [], []

    def watch(batch):
        seen.append((batch.records[0]["prompt"], batch.texts[0]))
        return [0.0]

    def note(episodes):
        ends.extend((e.prompt, e.text) for e in episodes)
        return [0.0]

    reward = weighted(dense=(1.0, dense(watch)), end=(1.0, note))
    envs = vector(1, reward=reward, max_prompt_tokens=2)
    envs.reset(options={"tokens": [ord("x"), letter[0]]})
    for action in (letter[1], ord("y"), STOP):
        envs.step([action])
    assert [text for _, text in seen] == ["é", "éy", "éy"]
    assert ends == [("x", "éy")] and seen[-1][1] == ends[0][1]


class Echo(World):
    """Repeats the turn, in capitals."""

    def begin(self, record, rng):
        return record["prompt"] + ">"

    def reply(self, turn, rng):
        return Reply(turn.text.upper(), reward=1.0)


def test_of_a_conversation_it_sees_the_present_turn_and_those_before():
    seen = []

    def watch(batch):
        turns = [[entry.text for entry in row] for row in batch.turns]
        seen.append((batch.records, list(batch.texts), turns, batch.ended.tolist()))
        return np.zeros(len(batch))

    envs = TextVectorEnv(
        2,
        prompts=["a"],
        world=Echo,
        reward=dense(watch),
        max_prompt_tokens=4,
        max_turn_tokens=2,
        max_turns=2,
        max_new_tokens=32,
        autoreset_mode="Disabled",
    )
    record = {"prompt": "q", "answer": "4"}
    envs.reset(options={"prompt": record})
    for row_0, row_1 in ((ord("x"), ord("k")), (ord("y"), STOP), (ord("z"), ord("m")), (STOP, 110)):
        envs.step([row_0, row_1])
    opened = [record] * 2  # what was drawn, not the "q>" that the world began with
    before, after = [[], []], [["xy", "XY"], ["k", "K"]]
    assert seen == [
        (opened, ["x", "k"], before, [False, False]),
        (opened, ["xy", "k"], before, [False, False]),
        (opened, ["z", "m"], after, [False, False]),
        (opened, ["z", "mn"], after, [True, True]),
    ]


def test_a_record_is_the_same_for_worlds_infos_and_dense_rewards():
    told = []

    class Seated(Echo):
        def begin(self, record, rng):
            told.append(record)
            return Prompt("begun", {"seat": 1})

    def watch(batch):
        told.extend(batch.records)
        return np.zeros(len(batch))

    chat = [{"role": "user", "content": "Hi"}]
    frame = ChatTemplate()
    options = {"reward": dense(watch), "frame": frame, "max_prompt_tokens": 64}
    for prompt in (chat, "Hi"):
        told.clear()
        envs = TextVectorEnv(1, prompts=[{"prompt": prompt, "x": 1}], world=Seated, **options)
        _, infos = envs.reset()
        envs.step([ord("a")])
        assert infos["prompt"][0] != "Hi"
        assert told == [{"x": 1, "prompt": prompt}, {"x": 1, "prompt": prompt, "seat": 1}]
        assert infos["record"][0] == told[1]
        plain = TextVectorEnv(1, prompts=[{"prompt": prompt, "x": 1}], **options)
        assert plain.reset()[1]["record"][0] == told[0]
        plain.step([ord("a")])
        assert told[2] == told[0]


@pytest.mark.parametrize("world", [None, Echo])
def test_texts_end_before_a_stop_string(world):
    seen = []

    def watch(batch):
        seen.append(list(batch.texts))
        return np.zeros(len(batch))

    envs = vector(
        3,
        reward=dense(watch),
        stop_strings=["!?"],
        world=world,
        max_new_tokens=9,
        max_prompt_tokens=4,
        autoreset_mode="Disabled",
    )
    envs.reset(seed=0)
    if world is None:  # the batch has fewer rows than the environment
        envs.step([STOP, ord("b"), ord("c")])
        seen.clear()
        envs.reset(options={"prompt": "x>", "reset_mask": np.array([True, False, False])})
        envs.step([STOP, ord("!"), ord("d")])
        assert seen == [["", "b!", "cd"]]
        envs.reset(options={"prompt": "x>", "reset_mask": np.array([True, False, False])})
        envs.step([ord("a"), ord("?"), ord("e")])
        assert seen[-1] == ["a", "b", "cde"]
    else:
        for row in ("a!x", "!?y", "?zz"):
            envs.step([ord(c) for c in row])
        assert seen == [["a", "!", "x"], ["a!", "", "xy"], ["a", "z", "xyz"]]


def test_nothing_is_decoded_unless_it_is_read():
    class Counted(BytesTokenizer):
        calls = 0

        def decode(self, ids):
            type(self).calls += 1
            return super().decode(ids)

    batches = []

    def keeps(batch):
        batches.append(batch)
        return np.zeros(len(batch))

    envs = vector(2, reward=dense(keeps), tokenizer=Counted(), max_new_tokens=9)
    envs.reset(seed=0)
    for _ in range(3):
        envs.step([65, 66])
    assert Counted.calls == 0
    assert batches[1].texts == ["AA", "BB"] and batches[2].texts == ["AAA", "BBB"]
    calls = Counted.calls
    assert batches[1].texts == ["AA", "BB"] and Counted.calls == calls  # decoded once


def test_a_batch_made_by_hand_needs_none_of_it():
    batch = step_batch()
    assert batch.records == [] and list(batch.turns) == []
    assert batch.texts[0] == "xe"


def test_the_trial_of_a_dense_reward_has_the_record():
    try_reward(dense(closer), Prompt("2+2=", {"answer": "4"}))
    seen = []

    def watch(batch):
        seen.append((batch.records, batch.texts, batch.stopped.tolist()))
        return [0.0]

    try_reward(dense(watch), Prompt("2+2=", {"answer": "4"}))
    assert seen == [([{"prompt": "2+2=", "answer": "4"}], ["An answer."], [True])]

"""Stop strings: exact whatever tokens they are made of."""

import numpy as np
import pytest
from environments import text
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import Reply, TextVectorEnv, World
from textenv.stop_strings import StopStrings
from textenv.tokenizers import BytesTokenizer, CharacterTokenizer


class Pieces:
    """A vocabulary of texts of any length; ids are their places."""

    name, stop_token, fingerprint = "pieces", None, "pieces"

    def __init__(self, *texts):
        self.texts, self.vocab_size = texts, len(texts)

    def encode(self, text):
        return [self.texts.index(c) for c in text]

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)


PIECES = Pieces("a", "b", "\n", "\n\n", "b\na", "xST", "OPx", "S", "T")


def answered(tokens, strings, **options):
    """Step through `tokens`; the end's reason and text, and the ids that were read."""
    defaults = {"prompts": ["a"], "reward": lambda episodes: [len(e.text) for e in episodes]}
    options = defaults | {"tokenizer": PIECES, "max_new_tokens": 12, "stop_tokens": ()} | options
    envs = TextVectorEnv(1, stop_strings=strings, **options)
    envs.reset(seed=0)
    for token in tokens:
        _, rewards, terminated, truncated, infos = envs.step([token])
        if terminated[0] or truncated[0]:
            end = infos["final_info"]
            ids = infos["final_obs"][0]
            ids = ids[ids != envs.pad_token].tolist()
            return end["finish_reason"][0], end["text"][0], ids[1:], rewards[0]
    return None


def test_one_token_or_two():
    assert answered([1, 3], ["\n\n"]) == ("stop", "b", [1, 3], 1.0)
    assert answered([1, 2, 2], ["\n\n"]) == ("stop", "b", [1, 2, 2], 1.0)
    assert answered([1, 2, 1, 2], ["\n\n"]) is None
    assert answered([0, 7, 8], ["ST"]) == ("stop", "a", [0, 7, 8], 1.0)


def test_a_string_that_begins_and_ends_inside_tokens():
    # What stands before it is the text, what stands behind it is kept in the ids.
    assert answered([0, 5, 6], ["STOP"]) == ("stop", "ax", [0, 5, 6], 2.0)
    assert answered([0, 4], ["\n"]) == ("stop", "ab", [0, 4], 2.0)


def test_the_first_of_several_strings_counts():
    assert answered([4], ["a", "\n"])[1] == "b"
    assert answered([5, 6], ["OP", "STO"])[1] == "x"


def test_the_prompt_is_not_searched():
    assert answered([0], ["aa"]) is None
    assert answered([0, 0], ["aa"])[1] == ""


def test_not_before_the_answer_is_long_enough():
    assert answered([2, 0, 0], ["\n"], min_new_tokens=3) is None
    assert answered([2, 0, 2], ["\n"], min_new_tokens=3)[1] == "\na"


def test_a_budget_that_is_spent_with_a_string_has_stopped():
    assert answered([0, 2], ["\n"], max_new_tokens=2)[:2] == ("stop", "a")
    assert answered([0, 0], ["\n"], max_new_tokens=2)[:2] == ("length", "aa")


def test_with_a_truncating_budget_a_string_terminates():
    envs = TextVectorEnv(
        1,
        prompts=["a"],
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=PIECES,
        stop_tokens=(),
        stop_strings="\n",
        max_new_tokens=2,
        budget="truncate",
    )
    envs.reset(seed=0)
    assert not envs.step([0])[2][0]
    _, _, terminated, truncated, _ = envs.step([2])
    assert terminated[0] and not truncated[0]


def test_characters_of_several_bytes():
    tokenizer = BytesTokenizer()
    for string in ("。", "é", "好!"):
        ids = [*b"a", *string.encode()]
        assert answered(ids, [string], tokenizer=tokenizer)[:3] == ("stop", "a", ids)
    assert answered(list("ê".encode()), ["é"], tokenizer=tokenizer) is None


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 8), min_size=1, max_size=12),
    strings=st.lists(st.sampled_from(["\n", "\n\n", "ST", "ab", "STOP", "a\n"]), min_size=1),
)
def test_equals_a_search_of_the_whole_text(tokens, strings):
    found = StopStrings(strings, PIECES)
    for length in range(1, len(tokens) + 1):
        whole = PIECES.decode(tokens[:length])
        places = [whole.find(string) for string in strings if string in whole]
        until = found.completed([], tokens[:length])
        assert until == (whole[: min(places)] if places else None)
        if places:
            break


@pytest.mark.parametrize("string", ["", 3])
def test_what_is_no_string_is_refused(string):
    with pytest.raises(ValueError, match="stop_strings holds"):
        StopStrings([string], PIECES)


class Echo(World):
    def begin(self, record, rng):
        return "a"

    def reply(self, turn, rng):
        return Reply(f"<{turn.text}{turn.finish_reason}>", reward=1.0)


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_turns_of_a_conversation_end_with_them(mode):
    from gymnasium.vector import AutoresetMode

    envs = TextVectorEnv(
        2,
        world=Echo,
        tokenizer=CharacterTokenizer("ab.,<>stop"),
        max_prompt_tokens=2,
        max_new_tokens=12,
        stop_strings=[".", ",b"],
        autoreset_mode=AutoresetMode[mode.upper()],
    )
    ids = {c: envs.tokenizer.encode(c)[0] for c in "ab.,"}
    envs.reset(seed=0)
    envs.step([ids["b"], ids[","]])
    observations, rewards, _, _, infos = envs.step([ids["."], ids["b"]])
    assert rewards.tolist() == [1.0, 1.0]
    assert infos["reply"].tolist() == ["<bstop>", "<stop>"]
    assert [text(envs, row) for row in observations] == ["ab.<bstop>", "a,b<stop>"]
    # The next turn is searched from its own beginning.
    observations, *_ = envs.step([ids["b"], ids["b"]])
    assert np.array_equal(envs._conversations.numbers, [1, 1])

"""Prompts that are too long: listed, cut or dropped."""

import json
import pickle

import numpy as np
import pytest
from environments import nothing
from hypothesis import given
from hypothesis import strategies as st

from textenv import TextVectorEnv, load_prompts
from textenv.errors import EmptyPromptsError, PromptTooLongError, UnframedError
from textenv.frames import ChatTemplate
from textenv.long_prompts import cut_long, drop_long
from textenv.prompts import Prompt
from textenv.tokenizers import BytesTokenizer, encode_prompt, train_bpe
from textenv.tokenizers.sources import SourceTokenizer

BYTES = BytesTokenizer()
BPE = train_bpe(["the cat sat on the mat, and the cat was fat"] * 3, 270)
SEEDS = np.arange(50, dtype=np.uint64)


def vector(prompts, room):
    return TextVectorEnv(1, prompts=prompts, reward=nothing, max_prompt_tokens=room)


def test_all_of_a_file_are_named_by_their_lines(tmp_path):
    lines = [json.dumps({"prompt": "x" * n}) for n in (3, 9, 4, 8)]
    (tmp_path / "my.jsonl").write_text("\n\n".join(lines))
    with pytest.raises(PromptTooLongError) as raised:
        vector(tmp_path / "my.jsonl", 5)
    first, second, way_out = str(raised.value).splitlines()
    assert first.endswith("my.jsonl:3: the prompt 'xxxxxxxxx' has 9 tokens, max_prompt_tokens is 5")
    assert second.endswith("my.jsonl:7: the prompt 'xxxxxxxx' has 8 tokens, max_prompt_tokens is 5")
    assert "textenv.long_prompts" in way_out
    (tmp_path / "my.txt").write_text("x" * 9)
    with pytest.raises(PromptTooLongError, match=r"my\.txt:1: "):
        vector(tmp_path / "my.txt", 5)


def test_a_long_list_of_long_prompts_is_cut_short():
    with pytest.raises(PromptTooLongError, match=r"prompts\[9\]: .*\nand 5 more\n"):
        vector(["far too long"] * 15, 5)


def test_the_end_is_kept_with_the_columns():
    cut = cut_long([{"prompt": "2 + 2 =", "answer": "4"}, "1 ="], BYTES, 4)
    assert [p.text for p in cut.prompts] == [" 2 =", "1 ="]
    assert cut.prompts[0].columns == {"answer": "4"}
    ids = cut_long([{"tokens": [1, 2, 3, 4], "answer": "4"}], BYTES, 3).prompts[0]
    assert ids.tokens.tolist() == [2, 3, 4] and ids.columns == {"answer": "4"}
    vector(cut, 4)


@given(st.text(min_size=1, max_size=60), st.integers(4, 20))
@pytest.mark.parametrize("tokenizer", [BYTES, BPE, SourceTokenizer(BYTES, before=[1])])
def test_what_is_cut_fits_and_is_an_end(tokenizer, text, room):
    room += 4  # the frame, and the bytes of one character
    (prompt,) = cut_long([text], tokenizer, room).prompts
    assert prompt.text and text.endswith(prompt.text)
    assert len(encode_prompt(tokenizer, prompt.text)) <= room
    if tokenizer is BYTES and prompt.text != text:  # nothing longer would have fitted
        assert len(text[-len(prompt.text) - 1 :].encode()) > room


def test_a_character_of_more_ids_than_there_is_room():
    with pytest.raises(PromptTooLongError, match=r"not even the end of 'ab€' fits into 2 tokens"):
        cut_long(["ab€"], BYTES, 2)


def test_long_ones_are_left_out():
    kept = drop_long(["far too long", "x", "y"], BYTES, 5)
    assert [p.text for p in kept.prompts] == ["x", "y"]
    with pytest.raises(EmptyPromptsError, match="none of 1 prompts fits into 5 tokens"):
        drop_long(["far too long"], BYTES, 5)


CHAT = [
    {"role": "system", "content": "sys"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "tool", "content": "three"},
    {"role": "assistant", "content": "four"},
    {"role": "user", "content": "five"},
]
CHAT_RECORD = {"prompt": CHAT, "n": 1}
TEMPLATE = ChatTemplate(user="{content}:", tool="{content}.", between="", answer="{content}")
FRAME = TEMPLATE.frame(BYTES)


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (28, ["sys", "one", "two", "three", "four", "five"]),  # 22 letters and 6 ids around them
        (27, ["sys", "five"]),
        (9, ["sys", "five"]),
        (8, ["sys", "ive"]),
        (6, ["sys", "e"]),
    ],
)
def test_chats_lose_their_oldest_questions_first(room, kept):
    (cut,) = cut_long([CHAT_RECORD], BYTES, room, FRAME).prompts
    assert [message["content"] for message in cut.messages] == kept
    assert len(FRAME.opening(cut.messages)) <= room
    assert cut.columns == {"n": 1} and cut.text == "\n".join(kept)


def test_a_frame_counts():
    with pytest.raises(PromptTooLongError, match="not even the end of 'five' fits into 5 tokens"):
        cut_long([CHAT_RECORD], BYTES, 5, FRAME)
    assert [p.text for p in cut_long(["abcd"], BYTES, 4, FRAME).prompts] == ["bcd"]
    assert [p.text for p in drop_long(["abcd", "abc"], BYTES, 4, FRAME).prompts] == ["abc"]
    with pytest.raises(UnframedError, match="a prompt: the prompt is a list of messages"):
        drop_long([CHAT_RECORD], BYTES, 4)


def make(rng):
    return "x" * int(rng.integers(1, 30))


@pytest.mark.parametrize("change", [cut_long, drop_long])
def test_prompts_of_a_function(change):
    source = change(make, BYTES, 10)
    drawn = [p.text for p in source.draw(SEEDS)]
    assert max(map(len, drawn)) == 10 and len(set(drawn)) > 2
    alone = [source.draw(SEEDS[i : i + 1])[0].text for i in range(50)]
    assert drawn == alone  # of the seed alone
    again = [p.text for p in pickle.loads(pickle.dumps(source)).draw(SEEDS)]
    assert again == drawn
    short = load_prompts(make).draw(SEEDS)
    assert all(a == b.text for a, b in zip(drawn, short, strict=True) if len(b.text) <= 10)
    vector(source, 10).reset(seed=0)


def test_a_function_that_makes_none_that_fit():
    source = drop_long(lambda rng: "far too long", BYTES, 5)
    with pytest.raises(EmptyPromptsError, match="fits into 5 tokens"):
        source.draw(SEEDS[:1])


def test_where_a_prompt_was_read_is_not_saved_with_it():
    prompt = Prompt("x", origin="my.txt:1")
    assert "my.txt" not in repr(prompt) and "my.txt" not in json.dumps(prompt.to_json())

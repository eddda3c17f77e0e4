import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runs.streaming import REPLACEMENT, TextStream, token_texts, visible
from textenv import load_tokenizer
from textenv.stop_strings import StopStrings
from textenv.tokenizers import train_bpe

BYTES = load_tokenizer("bytes")
some_bytes = st.lists(st.integers(0, 255), max_size=30)


def pieces(ids) -> list[str]:
    stream = TextStream(BYTES)
    return [stream.push(token) for token in ids] + [stream.finish()]


def test_ascii_comes_at_once():
    assert pieces(b"abc") == ["a", "b", "c", ""]


@pytest.mark.parametrize("character", ["é", "中", "😀"])
def test_a_character_waits_for_its_last_byte(character):
    ids = character.encode()
    assert pieces(b"a" + ids + b"b") == ["a", *[""] * (len(ids) - 1), character, "b", ""]


def test_half_a_character_at_the_end_is_shown_as_such():
    assert pieces("a中".encode()[:-1]) == ["a", "", "", REPLACEMENT]


def test_bytes_that_are_no_text_are_not_held_back_for_ever():
    shown = pieces([0xFF] * 20 + [ord("a")])
    assert "".join(shown) == REPLACEMENT * 20 + "a"
    assert "".join(shown[:20]) == REPLACEMENT * 17


@given(st.text(max_size=20))
def test_no_text_is_ever_shown_wrong(text):
    text = text.replace(REPLACEMENT, "")
    assert (
        "".join(pieces(text.encode("utf-8", "ignore"))) == text.encode("utf-8", "ignore").decode()
    )


@given(some_bytes)
def test_the_pieces_are_the_text_of_all_tokens(ids):
    assert "".join(pieces(ids)) == BYTES.decode(ids)
    texts = token_texts(BYTES, ids)
    assert len(texts) == len(ids) and "".join(texts) == BYTES.decode(ids)


def test_vocabularies_of_longer_tokens():
    tokenizer = train_bpe(["the end of the end, déjà vu"] * 3, 270)
    text = "the end déjà 中文 😀 the end"
    texts = token_texts(tokenizer, tokenizer.encode(text))
    assert "".join(texts) == text
    assert "" in texts and "中" in texts
    assert any(len(piece) > 1 for piece in texts)


def test_control_characters_are_spelt_out_but_for_lines():
    assert visible("a\tb\n中") == "a\tb\n中"
    assert visible("\x1b[2J\x00\x07") == "\\x1b[2J\\x00\\x07"


@pytest.mark.parametrize("said", ["say STOP it", "say ST OP", "STO", "a STSTOP x"])
def test_a_stream_ends_at_a_stop_string_and_holds_back_its_beginning(said):
    stream = TextStream(BYTES, stop_strings=["STOP", " it"])
    expected = said.partition("STOP")[0]  # all of it, if none comes
    shown = ""
    for token in said.encode():
        shown += stream.push(token)
        assert expected.startswith(shown)  # nothing is given out that has to be taken back
    shown += stream.finish()
    assert shown == expected


@settings(max_examples=60, deadline=None)
@given(st.text("abx", min_size=1, max_size=12), st.integers(0, 8))
def test_a_stream_ends_where_generate_does(said, shortest):
    strings = StopStrings(["ab", "bxa"], BYTES)
    ends = (
        strings.completed([], list(said[:length].encode()))
        for length in range(max(shortest, 1), len(said) + 1)
    )
    expected = next((text for text in ends if text is not None), said)
    stream = TextStream(BYTES, stop_strings=strings.strings, min_new_tokens=shortest)
    shown = ""
    for token in said.encode():
        shown += stream.push(token)
        assert expected.startswith(shown)
    assert shown + stream.finish() == expected


def test_a_stop_string_that_ends_too_early_is_text():
    stream = TextStream(BYTES, stop_strings=["ab"], min_new_tokens=4)
    pieces = [stream.push(token) for token in b"abxxab"]
    assert ("".join(pieces) + stream.finish()) == "abxx"

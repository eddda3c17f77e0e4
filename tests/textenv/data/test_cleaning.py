"""Repairs and filters, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenv.data import (
    c4,
    c4_lines,
    each_text,
    gopher_quality,
    gopher_repetition,
    repaired,
    repeated_lines,
    without_lines,
)

ftfy = pytest.importorskip("ftfy")
SENTENCE = "The river that we have seen goes to the sea, and it is wide and slow here today."
PAGE = " ".join(f"{SENTENCE[:-1]} at mile {i}." for i in range(4))


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("schÃ¶n", "schön"),
        ("It\u00e2\u20ac\u2122s", "It\u2019s"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\x07\x1b", "ab"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("a  b\t \tc  \nd", "a b c\nd"),
        ("def f():\n    return  1", "def f():\n    return 1"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("\n\nHuman: a\n\nAssistant: ", "\n\nHuman: a\n\nAssistant: "),
        ("没有\uff0c空格。", "没有\uff0c空格。"),
        ("\u201cyes\u201d", "\u201cyes\u201d"),
    ],
)
def test_what_is_repaired(broken, whole):
    assert repaired(broken) == whole


@given(st.text(alphabet="ab \n\t\r\x00\x07\u200b\ufeff\xe9\u4e00.", max_size=60))
def test_what_is_repaired_stays_so(text):
    once = repaired(text)
    assert repaired(once) == once


def test_every_text_of_a_record_is_changed_and_nothing_else():
    record = {"messages": [{"role": "user", "content": "a"}], "n": 3, "x": None, "t": ("b",)}
    assert each_text(record, lambda text: text * 2) == {
        "messages": [{"role": "useruser", "content": "aa"}],
        "n": 3,
        "x": None,
        "t": ["bb"],
    }


def test_lines_that_all_pages_have():
    pages = ["Home\nOne.\n Home", "Home \nTwo.", "Three.\n\nTwo."]
    assert repeated_lines(pages, 2) == {"Home": 2, "Two.": 2}
    assert repeated_lines(pages, 3) == {}
    assert without_lines("Home\n\nOne.\n Home\nTwo", {"Home"}) == "One.\nTwo"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PAGE, None),
        ("too short", "few words"),
        (" ".join(["a", "be"] * 40), "words of unusual length"),
        (PAGE.replace(" ", " # "), "words of unusual length"),
        (PAGE + " #hash" * 12, "many hashes"),
        ("\n".join(f"- {SENTENCE}" for _ in range(4)), "a list of points"),
        ("\n".join(f"{SENTENCE}..." for _ in range(4)), "lines that are cut off"),
        (PAGE + " 12345" * 30, "words without letters"),
        ("Der Fluss ist breit und langsam. " * 12, "no stop words"),
    ],
)
def test_gophers_filter_of_quality(text, reason):
    assert gopher_quality(text) == reason


def test_the_figures_of_the_filter_may_be_others():
    assert gopher_quality("too short", fewest_words=2, stop_words=0) is None
    assert gopher_quality(PAGE, most_words=20) == "many words"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PAGE, "one run of 2 words"),  # four sentences that are nearly one
        ("Every word of this one line is said once and never again, however long it gets.", None),
        ("a b c\n" * 5, "repeated lines"),
        ("One.\n\nTwo.\n\nOne.\n\nOne.\n\nOne.", "repeated lines"),
        ("我们 在 河边 走 " * 9, "one run of 2 words"),
    ],
)
def test_gophers_filter_of_repetition(text, reason):
    if text is PAGE:
        assert gopher_repetition(text) is not None
    else:
        assert gopher_repetition(text) == reason


def test_c4():
    page = "We saw the river today. It was wide! Was it slow?"
    assert c4(page) is None
    assert c4("Only one sentence.") == "fewer than three sentences"
    assert c4(page + " Lorem ipsum.") == "lorem ipsum"
    assert c4(page + " {") == "curly brackets"
    lines = "Menu\nWe saw the river today.\nTurn on JavaScript to read this.\nno end of a sentence"
    assert c4_lines(lines) == "We saw the river today."

"""BM25 against numbers worked out by hand."""

import math

import pytest

from textenv.errors import ToolError
from textenv.tools import Search

TEXT = """Cats sleep all day.

Dogs bark at cats, cats run.


Fish swim."""


def test_scores_by_hand():
    search = Search(TEXT, k1=1.5, b=0.75)
    assert search.paragraphs == [
        "Cats sleep all day.",
        "Dogs bark at cats, cats run.",
        "Fish swim.",
    ]
    # 4, 6 and 2 words, 4 on average. "cats" stands in two of three paragraphs, once and twice:
    # idf = log(1 + (3 - 2 + 0.5) / (2 + 0.5)) = log 1.6
    first = math.log(1.6) * 1 * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 1.0))
    second = math.log(1.6) * 2 * 2.5 / (2 + 1.5 * (0.25 + 0.75 * 1.5))
    assert search.scores("CATS") == pytest.approx([first, second, 0.0])
    # "fish" stands in one: log(1 + 2.5 / 1.5)
    fish = math.log(1 + 2.5 / 1.5) * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 0.5))
    assert search.scores("fish, fish and cats")[2] == pytest.approx(fish)  # a word counts once


def test_without_length_and_repetition_it_counts_words():
    search = Search(["a b", "a a a a c", "b b"], k1=0.0, b=0.0)
    idf = {"a": math.log(1.6), "b": math.log(1.6)}
    assert search.scores("a b") == pytest.approx([idf["a"] + idf["b"], idf["a"], idf["b"]])


def test_the_best_come_first_and_no_more_than_asked_for():
    search = Search(["a", "b a a", "c", "a b"], results=2)
    assert search.search("a b") == "a b\n\nb a a"
    assert search.search("c") == "c"
    assert search.search("nowhere") == "nothing was found" == search.search("")


def test_an_empty_text_is_refused():
    with pytest.raises(ToolError, match="no paragraph"):
        Search(" \n\n ")

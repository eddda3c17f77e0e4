"""Overlap of n-grams against a naive loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenv.data import contamination, words

WORD = st.sampled_from(["river", "Lake,", "sea", "一"])
TEXTS = st.lists(st.lists(WORD, max_size=9).map(" ".join), max_size=5)


def shared(documents, held_out, n, shortest, common):
    """The shares and the documents, run by run and document by document."""
    shares, touched = [], set()
    for text in held_out:
        some = words(text)
        if len(some) < shortest:
            shares.append(np.nan)
            continue
        size = min(n, len(some))
        runs = {tuple(some[i : i + size]) for i in range(len(some) - size + 1)}
        found = 0
        for run in runs:
            places = []
            for number, document in enumerate(documents):
                theirs = words(document)
                if any(tuple(theirs[i : i + size]) == run for i in range(len(theirs) - size + 1)):
                    places.append(number)
            if 0 < len(places) <= common:
                found += 1
                touched.update(places)
        shares.append(found / len(runs))
    return shares, touched


@given(TEXTS, TEXTS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_the_overlap_is_that_of_a_loop(documents, held_out, n, shortest, common):
    found = contamination(documents, held_out, n, shortest=shortest, common=common)
    shares, touched = shared(documents, held_out, n, shortest, common)
    assert found.shares.tolist() == pytest.approx(shares, nan_ok=True)
    assert found.documents.keys() == touched
    assert found.judged == sum(share == share for share in shares)
    assert found.overlapping == sum(share > 0 for share in shares)


def test_thirteen_words_in_a_row():
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    part = text.rpartition(" ")[0]
    found = contamination(["nothing", f"And: {text.upper()}!", part], [text, "short"])
    assert found.documents == {1: (text, 0)}
    assert found.shares.tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    # A shorter one is looked for as a whole.
    assert set(contamination([text, part], [part]).documents) == {0, 1}


def test_numbers_out_of_their_range():
    with pytest.raises(ValueError, match="n is 0"):
        contamination([], [], 0)

"""Duplicates against brute force over all pairs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.data import exact_duplicates, near_duplicates, words
from textenv.data.duplicates import similarity
from textenv.data.words import shingles

pytest.importorskip("datasketch")
WORD = st.sampled_from(["river", "lake", "sea", "the", "一", "湖"])
TEXTS = st.lists(st.lists(WORD, max_size=12).map(" ".join), max_size=8)


def jaccard(one, other, n):
    """From the definition, on sets of tuples of words."""

    def runs(text):
        some = words(text)
        size = min(n, max(len(some), 1))
        return {tuple(some[i : i + size]) for i in range(len(some) - size + 1)}

    a, b = runs(one), runs(other)
    return len(a & b) / len(a | b) if a | b else 1.0


@given(TEXTS)
def test_exact_duplicates_are_those_of_a_loop(texts):
    expected = {}
    for j, text in enumerate(texts):
        same = [i for i in range(j) if words(texts[i]) == words(text)]
        # Texts without a word are compared as they are.
        same = [i for i in same if words(text) or texts[i] == text]
        if same:
            expected[j] = same[0]
    assert exact_duplicates(texts) == expected


def test_capitals_punctuation_and_width_do_not_count():
    assert exact_duplicates(["One,  two!", "ONE two", "\uff4fne \uff54wo", "one", "...", "!"]) == {
        1: 0,
        2: 0,
    }


@given(st.lists(WORD, max_size=12), st.lists(WORD, max_size=12), st.integers(1, 5))
def test_the_similarity_is_jaccards(one, other, n):
    one, other = " ".join(one), " ".join(other)
    if words(one) and words(other):
        measured = similarity(shingles(one, n), shingles(other, n))
        assert measured == pytest.approx(jaccard(one, other, n))


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=60)
def test_what_is_found_is_near(texts, threshold):
    texts = [text for text in texts if text]
    found = near_duplicates(texts, threshold, shingle=2)
    for number, (earlier, similar) in found.items():
        assert earlier < number and earlier not in found
        assert similar == pytest.approx(jaccard(texts[earlier], texts[number], 2))
        assert similar >= threshold
    # Texts that are equal are never missed, and nothing that is kept is equal.
    kept = [text for number, text in enumerate(texts) if number not in found]
    assert len({tuple(words(text)) for text in kept}) == len(kept)


def test_few_that_are_near_are_missed():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(2000)]
    texts = []
    for _ in range(40):
        first = rng.choice(vocabulary, 120).tolist()
        texts.append(" ".join(first))
        for changed in (1, 2, 4, 8):
            other = first.copy()
            for place in rng.choice(120, changed, replace=False):
                other[place] = f"x{rng.integers(10**9)}"
            texts.append(" ".join(other))
    near = [(i, j) for i, j in combinations(range(len(texts)), 2) if i // 5 == j // 5]
    above = {j for i, j in near if i % 5 == 0 and jaccard(texts[i], texts[j], 5) >= 0.7}
    found = set(near_duplicates(texts, 0.7))
    assert len(above) > 80
    # All that are like the first of their kind, but one in a hundred, and none of another kind.
    assert len(above - found) <= len(above) // 100
    assert all(texts[j].split()[0] for j in found)


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_a_threshold_out_of_its_range(threshold):
    with pytest.raises(ValueError, match="similarity"):
        near_duplicates(["a"], threshold)

"""Texts that come twice: word for word, or nearly so.

Lee et al., "Deduplicating Training Data Makes Language Models Better" (2021), arXiv:2107.06499.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from textenv.data.words import digest, shingles, words
from textenv.imports import optional

SHINGLE = 5
"""Words of a shingle, as Lee et al. have them."""

MISSED = 0.005
"""Share of the pairs at the threshold that may be missed."""


def exact_duplicates(texts: Iterable[str]) -> dict[int, int]:
    """Texts whose words are those of an earlier one, by number, each with the first of its kind.

    Capitals, punctuation and white space do not count; texts without words are compared as they
    are.

    >>> exact_duplicates(["One, two.", "three", "one two"])
    {2: 0}
    """
    first: dict[int, int] = {}
    found = {}
    for number, text in enumerate(texts):
        key = digest(" ".join(words(text)) or f"={text}")
        known = first.setdefault(key, number)
        if known != number:
            found[number] = known
    return found


def near_duplicates(
    texts: Iterable[str],
    threshold: float = 0.8,
    *,
    shingle: int = SHINGLE,
    permutations: int = 128,
    seed: int = 1,
) -> dict[int, tuple[int, float]]:
    """Texts of whose shingles most are those of an earlier text that is kept.

    Two texts are near duplicates if the Jaccard similarity of their sets of shingles (runs of
    words), the size of what they share over the size of both together, is at least the threshold.
    Candidates are found by MinHash and locality-sensitive hashing (datasketch), and the similarity
    of each is then computed exactly: what is found is right, but of pairs at the threshold one in
    two hundred is missed, and fewer above it.

    Args:
        texts: Read once; the shingles of those that are kept stay in memory as numbers.
        threshold: Above 0 and at most 1.
        shingle: Words of a shingle.
        permutations: Hash functions; more miss less and take longer.
        seed: Of the hash functions.

    Returns:
        By number of a text, the earlier text that is kept and the similarity.

    Raises:
        ValueError: The threshold is out of its range.
        MissingExtraError: datasketch is not installed.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; a similarity is above 0 and at most 1")
    with optional("datasketch", extra="data", purpose="finding near duplicates"):
        from datasketch import MinHash, MinHashLSH
    index = MinHashLSH(num_perm=permutations, params=bands(threshold, permutations))
    kept: dict[int, NDArray[np.uint64]] = {}
    found = {}
    for number, text in enumerate(texts):
        own = shingles(text, shingle)
        sketch = MinHash(num_perm=permutations, seed=seed, hashfunc=_as_it_is)
        sketch.update_batch(own.tolist())
        alike = [(similarity(own, kept[i]), -i) for i in index.query(sketch)]
        best, earliest = max(alike, default=(0.0, 0))
        if best >= threshold:
            found[number] = (-earliest, best)
        else:
            index.insert(number, sketch)
            kept[number] = own
    return found


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands of a table, and hash functions of each.

    Two texts of similarity s meet in a band of r functions with probability s**r, and in one of b
    bands at least with 1 - (1 - s**r)**b. The longest bands are taken that miss no more than
    `MISSED` at the threshold: shorter ones miss less, and give more candidates to compare.
    """
    for rows in range(permutations // 2, 1, -1):
        count = permutations // rows
        if (1 - threshold**rows) ** count <= MISSED:
            return count, rows
    return permutations, 1


def similarity(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Jaccard similarity of two sets of shingles, sorted arrays of different numbers."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _as_it_is(shingle: int) -> int:
    return shingle & 0xFFFFFFFF  # datasketch's permutations take 32 bits

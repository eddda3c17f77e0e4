"""Words of texts, for comparing texts."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# Chinese and Japanese have no spaces between words: each of their characters is one.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text: what is left of it for comparing, in the order of the text.

    Texts that look alike have equal words: compatibility forms become plain ones (NFKC: full width,
    ligatures), capitals small letters (case folding, which also makes ss of ß). A word is a run of
    letters and digits; signs, the underscore and white space part words and are left out. Chinese
    and Japanese have no spaces: each of their characters is a word.

    >>> words("Hello, WORLD_2! 你好")
    ['hello', 'world', '2', '你', '好']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ngrams(some: Sequence[str], n: int) -> Iterator[str]:
    """All runs of n words in their order, each as one text.

    >>> list(ngrams(["a", "b", "c"], 2))
    ['a b', 'b c']
    """
    return (" ".join(some[begin : begin + n]) for begin in range(len(some) - n + 1))


def digest(text: str) -> int:
    """A number of 64 bits that stands for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def shingles(text: str, n: int) -> NDArray[np.uint64]:
    """Digests of the different n-grams of a text, sorted, shape (k,), uint64.

    A text of fewer than n words has one: all its words.
    """
    some = words(text)
    runs = {digest(run) for run in ngrams(some, min(n, max(len(some), 1)))}
    return np.array(sorted(runs), dtype=np.uint64)

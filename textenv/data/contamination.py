"""Whether texts that are to be measured on stand in what was read: overlap of n-grams.

Brown et al., "Language Models are Few-Shot Learners" (2020), arXiv:2005.14165, appendix C: texts
overlap if they share a run of 13 words, without capitals and punctuation. A run that stands in more
than ten documents is a phrase of the language or of a licence, and is no copy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textenv.data.words import ngrams, words

LONGEST, SHORTEST, COMMON = 13, 8, 10


@dataclass(frozen=True)
class Contamination:
    """What held-out texts and documents share.

    Attributes:
        shares: Of each held-out text, the share of its n-grams that stand in a document, shape
            (h,); NaN if it has fewer words than `shortest` and cannot be judged.
        documents: Number of each document that shares something, with the first n-gram that it
            shares and the held-out text that has it.
    """

    shares: NDArray[np.float64]
    documents: dict[int, tuple[str, int]]

    @property
    def judged(self) -> int:
        """Held-out texts that are long enough."""
        return int(np.isfinite(self.shares).sum())

    @property
    def overlapping(self) -> int:
        """Held-out texts of which something stands in a document."""
        return int((self.shares > 0).sum())


def contamination(
    documents: Iterable[str],
    held_out: Sequence[str],
    n: int = LONGEST,
    *,
    shortest: int = SHORTEST,
    common: int = COMMON,
) -> Contamination:
    """Find runs of n words that held-out texts and documents share.

    A held-out text of fewer than n words is searched for as a whole.

    Args:
        documents: What is read in training; one at a time is in memory.
        held_out: What is measured on.
        n: Words of a run.
        shortest: A held-out text of fewer words cannot be judged: it may stand anywhere by chance.
        common: A run in more documents than this is no copy.

    Raises:
        ValueError: `n` or `shortest` is below 1.
    """
    if n < 1 or shortest < 1:
        raise ValueError(f"n is {n} and shortest is {shortest}; both must be 1 or more")
    runs_of = []
    owner: dict[str, int] = {}
    lengths = set()
    for number, text in enumerate(held_out):
        some = words(text)
        length = min(n, len(some))
        runs = set() if len(some) < shortest else set(ngrams(some, length))
        runs_of.append(runs)
        lengths |= {length} if runs else set()
        for run in runs:
            owner.setdefault(run, number)
    found: dict[str, list[int]] = {}
    for number, text in enumerate(documents):
        some = words(text)
        here = dict.fromkeys(
            run for length in sorted(lengths) for run in ngrams(some, length) if run in owner
        )
        for run in here:
            found.setdefault(run, []).append(number)
    copies = {run: places for run, places in found.items() if len(places) <= common}
    shares = np.array(
        [len(runs & copies.keys()) / len(runs) if runs else np.nan for runs in runs_of]
    ).reshape(len(held_out))
    touched: dict[int, tuple[str, int]] = {}
    for run, places in copies.items():
        for place in places:
            touched.setdefault(place, (run, owner[run]))
    return Contamination(shares, dict(sorted(touched.items())))

"""A search over a small text, held in memory: BM25 over its paragraphs."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from textenv.errors import ToolError

_WORD = re.compile(r"\w+")


class Search:
    r"""Finds the paragraphs of a text that fit a query best; its method `search` is the tool.

    Words are compared without case; there is no stemming. The score is BM25 (Robertson and
    Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009) with the idf of
    Lucene, which is never negative: the sum over the query's words of

        log(1 + (N - n + 0.5) / (n + 0.5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * length / mean))

    for a word that stands f times in this paragraph and in n of the N paragraphs.

    >>> search = Search("Cats sleep all day.\n\nDogs bark at cats.\n\nFish swim.", results=1)
    >>> search.search("what do dogs do?")
    'Dogs bark at cats.'

    Args:
        text: Paragraphs, or one text in which empty lines divide them.
        results: How many paragraphs are returned.
        k1: How much a word that is repeated counts.
        b: How much longer paragraphs are held back, 0 to 1.

    Raises:
        ToolError: There is no paragraph.
    """

    def __init__(
        self, text: str | Sequence[str], *, results: int = 3, k1: float = 1.5, b: float = 0.75
    ):
        pieces = re.split(r"\n\s*\n", text) if isinstance(text, str) else text
        self.paragraphs = [piece.strip() for piece in pieces if piece.strip()]
        if not self.paragraphs:
            raise ToolError("there is no paragraph to search in")
        self.results, self.k1, self.b = results, k1, b
        self._counts = [Counter(_words(paragraph)) for paragraph in self.paragraphs]
        self._within = Counter(word for counts in self._counts for word in counts)
        self._mean = sum(counts.total() for counts in self._counts) / len(self._counts)

    def search(self, query: str) -> str:
        """Search the text for paragraphs about something.

        Args:
            query: Words to look for.

        Returns:
            The paragraphs that fit best, the best first.
        """
        scores = self.scores(query)
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[: self.results]
        found = [self.paragraphs[place] for place in best if scores[place] > 0]
        return "\n\n".join(found) or "nothing was found"

    def scores(self, query: str) -> list[float]:
        """The score of each paragraph."""
        words = set(_words(query))
        return [sum(self._score(word, counts) for word in words) for counts in self._counts]

    def _score(self, word: str, counts: Counter[str]) -> float:
        number, within = counts[word], self._within[word]
        if not number:
            return 0.0
        idf = math.log(1 + (len(self.paragraphs) - within + 0.5) / (within + 0.5))
        length = 1 - self.b + self.b * counts.total() / self._mean
        return idf * number * (self.k1 + 1) / (number + self.k1 * length)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

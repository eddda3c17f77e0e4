"""Filters that tell running text from what else is on pages, with the figures of their papers.

Each takes a text and gives the reason to drop it, or None. Gopher: Rae et al., "Scaling Language
Models: Methods, Analysis & Insights from Training Gopher" (2021), arXiv:2112.11446, appendix A.1.
C4: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (2020), arXiv:1910.10683, section 2.2. What they count as words is parted by spaces:
`gopher_quality` and `c4` are no use for Chinese and Japanese; `gopher_repetition` is.

Left out: C4's list of bad words, and its recognition of English.
"""

import re
from collections import Counter
from collections.abc import Sequence

from textenv.data.words import ngrams, words

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""English words of which Gopher wants two."""

BULLETS = ("•", "‣", "▪", "●", "-", "*", "\N{EN DASH}")
ELLIPSES = ("...", "…")

MOST_OF_ONE = {2: 0.20, 3: 0.18, 4: 0.16}
"""Share of the characters that the most frequent n-gram may have, by n."""

MOST_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Share of the characters that may be in n-grams that come twice or more, by n."""

_SENTENCE_END = re.compile(r"[.!?][\"'\N{RIGHT DOUBLE QUOTATION MARK})]*(?=\s|$)")


def gopher_quality(
    text: str, *, fewest_words: int = 50, most_words: int = 100_000, stop_words: int = 2
) -> str | None:
    """Gopher's filter of quality: length, words of a usual length, symbols, lists, stop words.

    Args:
        text: The document.
        fewest_words: Fewest words; lower it for records of conversations.
        most_words: Most words.
        stop_words: How many of `STOP_WORDS` it needs; 0 for another language than English.
    """
    found = text.split()
    count = len(found)
    if not fewest_words <= count <= most_words:
        return f"{'few' if count < fewest_words else 'many'} words"
    mean = sum(map(len, found)) / max(count, 1)
    if not 3 <= mean <= 10:
        return "words of unusual length"
    for name, symbols in (("hashes", ("#",)), ("ellipses", ELLIPSES)):
        if sum(map(text.count, symbols)) / count > 0.1:
            return f"many {name}"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines):
        return "a list of points"
    if sum(line.endswith(ELLIPSES) for line in lines) > 0.3 * len(lines):
        return "lines that are cut off"
    if sum(any(c.isalpha() for c in word) for word in found) < 0.8 * count:
        return "words without letters"
    if len(STOP_WORDS & set(words(text))) < stop_words:
        return "no stop words"
    return None


def gopher_repetition(text: str) -> str | None:
    """Gopher's filter of repetitions: of lines, of paragraphs and of n-grams."""
    for name, parts in (("lines", text.split("\n")), ("paragraphs", re.split(r"\n{2,}", text))):
        parts = [part.strip() for part in parts if part.strip()]
        repeated = _repeated(parts)
        if len(repeated) > 0.3 * len(parts):
            return f"repeated {name}"
        if sum(map(len, repeated)) > 0.2 * max(len(text), 1):
            return f"repeated {name}"
    some = words(text)
    characters = sum(map(len, some))
    for n, most in MOST_OF_ONE.items():
        counts = Counter(ngrams(some, n))
        if counts:
            run, times = max(counts.items(), key=lambda item: (item[1], len(item[0])))
            # A run that comes once is no repetition, whatever its share of a short text.
            if times > 1 and times * (len(run) - n + 1) > most * characters:
                return f"one run of {n} words"
    for n, most in MOST_REPEATED.items():
        if _in_repeated_runs(some, n) > most * characters:
            return f"repeated runs of {n} words"
    return None


def c4(text: str) -> str | None:
    """C4's filter of pages; see `c4_lines` for the lines of those that are kept."""
    lowered = text.lower()
    if "lorem ipsum" in lowered:
        return "lorem ipsum"
    if "{" in text:
        return "curly brackets"
    if len(_SENTENCE_END.findall(text)) < 3:
        return "fewer than three sentences"
    return None


def c4_lines(text: str) -> str:
    """The lines that C4 keeps: five words or more, an end of a sentence, no word of Javascript."""
    kept = [
        line
        for line in text.split("\n")
        if len(line.split()) >= 5
        and line.rstrip().endswith((".", "!", "?", '"', "\N{RIGHT DOUBLE QUOTATION MARK}"))
        and "javascript" not in line.lower()
    ]
    return "\n".join(kept)


FILTERS = {"gopher-quality": gopher_quality, "gopher-repetition": gopher_repetition, "c4": c4}


def _repeated(parts: Sequence[str]) -> list[str]:
    """All but the first of equal parts."""
    seen: set[str] = set()
    again = []
    for part in parts:
        if part in seen:
            again.append(part)
        seen.add(part)
    return again


def _in_repeated_runs(some: Sequence[str], n: int) -> int:
    """Characters of the words that are in a run of n words that came before; each counts once."""
    seen: set[str] = set()
    marked = bytearray(len(some))
    for begin, run in enumerate(ngrams(some, n)):
        if run in seen:
            marked[begin : begin + n] = b"\x01" * n
        seen.add(run)
    return sum(len(word) for word, mark in zip(some, marked, strict=True) if mark)

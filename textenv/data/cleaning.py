"""Repairs of texts: broken encodings, control characters, spaces, lines that all pages have."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from textenv.imports import optional

_SPACES = re.compile(r"(?<=\S)[^\S\n]+")
_EMPTY_LINES = re.compile(r"\n{3,}")
_UNSEEN = {"\u200b", "\u2060", "\ufeff", "\u00ad"}
"""Characters of no width that people do not type: they part words that look whole."""


def repaired(text: str) -> str:
    r"""A text with what programs have broken put right.

    Broken encodings are repaired by ftfy (Speer, "ftfy", 2019, doi:10.5281/zenodo.2591652), line
    ends become "\n", and control characters, code points that stand for nothing and characters of
    no width are left out. Inside a line runs of spaces become one, and several empty lines become
    one. White space at both ends of the text and before a line stays: a prompt may end in a space
    on purpose, and code has its indentation.

    >>> repaired("sch\u00c3\u00b6n  here.\r\n\x00\n\n\nYes\u200b. ")
    'schön here.\n\nYes. '

    Raises:
        MissingExtraError: ftfy is not installed.
    """
    with optional("ftfy", extra="data", purpose="a repair of encodings"):
        import ftfy
    # Quotation marks and the wide characters of Chinese are not broken.
    text = ftfy.fix_text(text, uncurl_quotes=False, fix_character_width=False)
    text = "".join(c for c in text if c in "\n\t" or not _is_unseen(c))
    inside = text.strip()
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    lines = (_SPACES.sub(" ", line).rstrip() for line in inside.split("\n"))
    return before + _EMPTY_LINES.sub("\n\n", "\n".join(lines)) + after * bool(inside)


def _is_unseen(character: str) -> bool:
    return character in _UNSEEN or unicodedata.category(character) in ("Cc", "Cs", "Cn")


def repeated_lines(texts: Iterable[str], fewest: int) -> dict[str, int]:
    """Lines that stand in at least `fewest` texts, with the number of these: menus, licences.

    White space around a line does not count, and empty lines are none. CCNet (Wenzek et al., 2019,
    arXiv:1911.00359) and C4 drop such repetitions too.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({line.strip() for line in text.split("\n")} - {""})
    return {line: count for line, count in counts.most_common() if count >= fewest}


def without_lines(text: str, lines: Collection[str]) -> str:
    """A text without some of its lines, compared without the white space around them."""
    kept = [line for line in text.split("\n") if line.strip() not in lines]
    return _EMPTY_LINES.sub("\n\n", "\n".join(kept)).strip("\n")


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A record with `change` applied to every text in it, however deep; names stay as they are.

    >>> each_text({"a": ["x", 3, {"b": "y"}]}, str.upper)
    {'a': ['X', 3, {'b': 'Y'}]}
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [each_text(one, change) for one in value]
    if isinstance(value, dict):
        return {name: each_text(one, change) for name, one in value.items()}
    return value

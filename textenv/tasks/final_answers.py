r"""Finding the final answer in a text that reasons.

Each of these functions takes a text and returns what it finds, or None. If there are several
places, the last one counts, since a correction comes after the mistake.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from textenv.tasks.numbers import last_number

Extractor: TypeAlias = Callable[[str], str | None]
"""Takes a text and returns the answer in it, or None."""


def whole_text(text: str) -> str | None:
    """The whole text without white space around it; None if nothing is left."""
    return text.strip() or None


def after_hashes(text: str) -> str | None:
    r"""The text after the last "####" of a line, as in GSM8K's solutions.

    >>> after_hashes("6 * 12 = 72\n#### 72")
    '72'
    """
    found = re.findall(r"####[ \t]*(\S[^\n]*)", text)
    return found[-1].strip() if found else None


def boxed(text: str) -> str | None:
    r"""The content of the last box: \boxed, \fbox or \framebox.

    >>> boxed(r"It is $\boxed{\frac{1}{2}}$."), boxed(r"So $\boxed 7$, or \fbox {7}.")
    ('\\frac{1}{2}', '7')

    As in LaTeX, the braces may be left out; the content then ends with the formula, the sentence or
    the line. So does that of a box that is never closed, as where an answer was cut. An empty
    box is none: texts that reason about their task speak of "\boxed{}".
    """
    contents = (_content(text, found.end()) for found in reversed([*_BOX.finditer(text)]))
    return next((content for content in contents if content), None)


_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])(?:\s*\[[^\[\]\n]*\](?=\s*[\[{]))*\s*")
_BRACE = re.compile(r"\\.|([{}])", re.DOTALL)  # \{ and \} are signs, not braces
_LOOSE = re.compile(r"\s*(.*?)(?:(?<!\\)\$|\\[)\]]|[.!?](?=\s|$)|\n|$)")
_WORD = re.compile(r"[A-Za-z]{2}")


def _content(text: str, start: int) -> str:
    """What stands in the box whose content, with or without a brace, begins at `start`."""
    if not text.startswith("{", start):
        # Before a word it is no box, as in "put it into \boxed form".
        return "" if _WORD.match(text, start) else _loose(text, start)
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[1], 0)
        if depth == 0:
            return text[start + 1 : brace.start()].strip()
    return _loose(text, start + 1)


def _loose(text: str, start: int) -> str:
    found = _LOOSE.match(text, start)
    assert found is not None  # it may be empty
    return found[1].strip()


def stated(text: str) -> str | None:
    """The text after the last "the answer is", up to the end of its sentence or line.

    >>> stated("Three and 4 more. The answer is 7.5. Q: what")
    '7.5'

    Returns:
        The text, or None if the phrase does not occur or nothing follows it.
    """
    found = re.findall(
        r"\bthe (?:final |correct )?answer is:?[ \t]*(.*?)(?:[.!?](?=\s|$)|\n|$)",
        text,
        re.IGNORECASE,
    )
    return (found[-1].strip() or None) if found else None


def tagged(text: str) -> str | None:
    r"""The content of the last <answer>...</answer>, for which reasoning-gym's system prompts ask.

    >>> tagged("<think>2 + 2</think>\n<answer> 4 </answer>")
    '4'
    """
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else text[start + len("<answer>") : end].strip() or None


def first_found(*extractors: Extractor) -> Extractor:
    """An extractor that tries several in turn and returns the first find.

    >>> first_found(boxed, last_number)("It is 4.5")
    '4.5'
    """
    return partial(_first_found, extractors)


def _first_found(extractors: Sequence[Extractor], text: str) -> str | None:
    return next((found for e in extractors if (found := e(text)) is not None), None)


def final_answer(text: str) -> str | None:
    r"""The text after "####", in \boxed{} or after "the answer is"; else the last number."""
    return _USUAL(text)


_USUAL = first_found(after_hashes, boxed, stated, last_number)

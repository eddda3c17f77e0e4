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
    r"""The content of the last \boxed{...}, braces within it included.

    >>> boxed(r"It is $\boxed{\frac{1}{2}}$.")
    '\\frac{1}{2}'

    Returns:
        The content, or None if there is no \boxed{ or its brace is never closed.
    """
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip() or None
    return None


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

r"""Finding the final answer in a text that reasons.

Each of these takes a text and gives what it found, or None. The last place counts where there are
several: whoever corrects an answer means the correction.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from textenv.tasks.numbers import last_number

Extractor: TypeAlias = Callable[[str], str | None]
"""A text to the answer in it, or None."""


def whole_text(text: str) -> str | None:
    """All of it, without white space around it; None if nothing is left."""
    return text.strip() or None


def after_hashes(text: str) -> str | None:
    r"""What stands behind the last "####" of a line, as in GSM8K's solutions.

    >>> after_hashes("6 * 12 = 72\n#### 72")
    '72'
    """
    found = re.findall(r"####[ \t]*(\S[^\n]*)", text)
    return found[-1].strip() if found else None


def boxed(text: str) -> str | None:
    r"""What the last \boxed{...} holds, braces within it included.

    >>> boxed(r"It is $\boxed{\frac{1}{2}}$.")
    '\\frac{1}{2}'

    Returns:
        None as well if its brace is never closed.
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
    """What stands behind the last "the answer is", up to the end of its sentence or line.

    >>> stated("Three and 4 more. The answer is 7.5. Q: what")
    '7.5'

    Returns:
        None if the phrase does not occur, or nothing follows it.
    """
    found = re.findall(
        r"\bthe (?:final |correct )?answer is:?[ \t]*(.*?)(?:[.!?](?=\s|$)|\n|$)",
        text,
        re.IGNORECASE,
    )
    return (found[-1].strip() or None) if found else None


def tagged(text: str) -> str | None:
    r"""What the last <answer>...</answer> holds, as reasoning-gym's system prompts ask for it.

    >>> tagged("<think>2 + 2</think>\n<answer> 4 </answer>")
    '4'
    """
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else text[start + len("<answer>") : end].strip() or None


def first_found(*extractors: Extractor) -> Extractor:
    """What the first of several extractors finds that finds anything.

    >>> first_found(boxed, last_number)("It is 4.5")
    '4.5'
    """

    def extract(text: str) -> str | None:
        return next((found for e in extractors if (found := e(text)) is not None), None)

    return extract


def final_answer(text: str) -> str | None:
    r"""Behind "####", in \boxed{}, behind "the answer is", or else the last number."""
    return _USUAL(text)


_USUAL = first_found(after_hashes, boxed, stated, last_number)

"""Texts that end an answer or a turn, wherever tokens begin and end.

A stop string may be one token or several, or begin inside a token. So the text is what is searched.
Only the tokens that can complete a string are looked at twice, which few can.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textenv.tokenizers.base import Tokenizer
from textenv.tokenizers.texts import REPLACEMENT, certain, decode_answer


class StopStrings:
    """Finds where an answer ends.

    Args:
        strings: Texts that end an answer; what is behind one is not part of the answer's text.
        tokenizer: Turns ids into text.

    Raises:
        ValueError: A string is empty or no text.
    """

    def __init__(self, strings: Sequence[str], tokenizer: Tokenizer):
        strings = [strings] if isinstance(strings, str) else strings
        for string in strings:
            if not isinstance(string, str) or not string:
                raise ValueError(f"stop_strings holds {string!r}; each must be a text, not empty")
        self.strings, self._tokenizer = tuple(strings), tokenizer

    def __bool__(self) -> bool:
        """Whether there is any string."""
        return bool(self.strings)

    @cached_property
    def may_complete(self) -> NDArray[np.bool_]:
        """Tokens whose text may hold the end of a string, shape (V,), bool."""
        lasts = {string[-1] for string in self.strings}
        # Bytes that are no character by themselves may be the last of one.
        lasts |= {REPLACEMENT} if any(last > "\x7f" for last in lasts) else set()
        # Behind another text: some vocabularies drop the space where a text begins.
        anchor = self._tokenizer.encode("a")
        before = self._tokenizer.decode(anchor)
        marks = np.zeros(self._tokenizer.vocab_size, dtype=bool)
        for token in range(len(marks)):
            text = self._tokenizer.decode([*anchor, token])
            text = text[len(before) :] if text.startswith(before) else text
            marks[token] = not lasts.isdisjoint(text)
        return marks

    def completed(self, before: Sequence[int], answer: Sequence[int]) -> str | None:
        """The answer's text before the stop string that its last token completes, if it does.

        Args:
            before: Ids in front of the answer.
            answer: Ids of the answer so far; not empty.
        """
        if not self.may_complete[answer[-1]]:
            return None
        whole = decode_answer(self._tokenizer, before, answer)
        known = len(certain(decode_answer(self._tokenizer, before, answer[:-1])))
        return until(self.strings, whole, known)


def until(strings: Sequence[str], text: str, known: int) -> str | None:
    """`text` before the first string in it that ends behind its first `known` characters."""
    places = [text.find(string, max(known - len(string) + 1, 0)) for string in strings]
    found = [place for place in places if place >= 0]
    return text[: min(found)] if found else None

"""One text under a grammar, and what may be chosen for it where its budget nears."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.grammars.compiled import RESERVE, Compiled
from textenv.grammars.completions import WIDTHS, count, finishes, marked, numbers
from textenv.tokenizers.texts import LONGEST_PART

SEARCHED = 24
"""Where at most this many tokens may come next, a completion is searched behind each of them."""

TRIED = 256
"""Up to this many are tried each with the completion that is known; of more, their bytes are."""

PACE = 4
"""Until it is looked at, a completion is assumed to grow by no more tokens than this in a step, or
by no more than what one token was seen to add to one."""


class Sentence:
    """A text that grows by a token at a time.

    It is a function of its tokens and its budget: told the same again, it gives the same masks.

    Args:
        grammar: Compiled.
        room: Tokens that the text may have, its stop token included.

    Attributes:
        bits: Which tokens may come next, packed, shape (words,), int32: those that the grammar
            allows, and where the budget nears, of these such behind which a completion fits. Where
            none fits any more, those of the grammar. All zero if nothing can come next.
    """

    def __init__(self, grammar: Compiled, room: int):
        self._grammar, self._room, self._look = grammar, room, room
        self._matcher: Any = grammar.copy()
        # What finishes the text from where it was looked at last; None if nothing fits.
        self._rest: list[int] | None = grammar.completion
        self._begun_with, self._tokens = room, list[int]()
        self._narrowed: tuple[Any, NDArray[np.int32]] | None = None
        # Where it was looked at last: the matcher, what finished the text there, tokens before.
        self._looked: tuple[Any, list[int] | None, int] = self._matcher, self._rest, 0
        self.bits = grammar.first
        self._narrow()

    def __reduce__(self) -> Any:
        return _rewritten, (self._grammar, self._begun_with, self._tokens)

    @property
    def finished(self) -> bool:
        """Whether the text may end here."""
        return self._matcher is not None and bool(self._matcher.is_accepting())

    def write(self, token: int) -> bool:
        """Put a token behind the text; returns whether the grammar takes it, and can go on.

        A stop token is not written: `finished` says whether it may come.

        Raises:
            GrammarError: llguidance has given up.
        """
        self._room -= 1
        self._tokens.append(token)
        # What llguidance says of itself after a refused token means nothing: it goes for good.
        if self._matcher is None or not self._matcher.consume_token(token):
            self._matcher, self.bits = None, np.zeros_like(self.bits)
            return False
        if self._rest is not None and self._rest[0] == token:
            self._rest = self._rest[1:]
        if self._room > 0:
            self.bits = self._grammar.allowed(self._matcher)
            self._narrow()
        return bool(self.bits.any())

    def _narrow(self) -> None:
        """Where the budget nears, keep the tokens behind which a completion fits."""
        if self._rest is None or self._room > self._look:
            return
        rest = self._rest
        if len(rest) > self._room or not self._takes(rest):
            self._rest = self._found(self._matcher, self._room, rest) or self._followed()
            if self._rest is None:
                return
            rest = self._rest
        self._looked = self._matcher.deep_copy(), rest, len(self._tokens)
        spare = self._room - len(rest) - self._grammar.reserve
        # A step takes a token of the room, too.
        pace = 1 + max(PACE, self._grammar.reserve - RESERVE)
        self._look = self._room - max(1, spare // pace)
        if spare <= 0:
            self.bits = self._fitting(rest)

    def _takes(self, path: Sequence[int]) -> bool:
        return finishes(self._matcher, path)

    def _found(self, matcher: Any, room: int, known: Sequence[int]) -> list[int] | None:
        """A completion that fits into the room; the quick search may miss a shorter one."""
        find = self._grammar.search.find
        rest = find(matcher, room, known)
        if rest is None or len(rest) > room:
            rest = find(matcher, room)
        return None if rest is None or len(rest) > room else rest

    def _followed(self) -> list[int] | None:
        """A completion that fits, from that of the last look on, token by token.

        One search over all of them may miss it: deep in nested parts each layer has many states.
        """
        matcher, rest, begin = self._looked
        state = matcher.deep_copy()
        for token in self._tokens[begin:]:
            state.consume_token(token)
            if rest is None:
                return None
            rest = rest[1:] if rest[0] == token else self._grammar.search.find(state, known=rest)
        return None if rest is None or len(rest) > self._room else rest

    def _fitting(self, rest: list[int]) -> NDArray[np.int32]:
        """Of the tokens that may come next, those behind which a completion fits, packed.

        Of many tokens these are the ones that leave the completion as it is, such as letters in the
        middle of a string, and those that may stand for its own next one. They are found once for
        all places with the same tokens to choose from and the same completion.
        """
        words, many = self._grammar.vocabulary, count(self.bits)
        if many <= SEARCHED:
            ids = numbers(self.bits).tolist()
            fitting = [i for i in ids if self._fits(i, rest) or self._reaches(i, rest)]
            return words.packed(fitting or rest[:1])
        spare = self._room - len(rest)
        key = (self.bits.tobytes(), rest, spare > 0, spare > LONGEST_PART)
        if self._narrowed is None or self._narrowed[0] != key:
            if many <= TRIED:
                ids = numbers(self.bits).tolist()
                fit = words.packed([i for i in ids if self._fits(i, rest)])
            else:
                fit = words.packed(rest[:1]) | words.is_stop
                if spare > 0:
                    fit |= self._loops(rest, spare > LONGEST_PART)
            fit &= self.bits
            self._narrowed = key, fit if fit.any() else words.packed(rest[:1])
        return self._narrowed[1]

    def _fits(self, token: int, rest: Sequence[int]) -> bool:
        """Whether the known completion fits behind a token, or the token into the completion."""
        if token == rest[0] or marked(self._grammar.vocabulary.is_stop, token):
            return True
        if len(rest) < self._room and self._takes([token, *rest]):
            return True
        return len(rest) > 1 and self._takes([token, *rest[1:]])

    def _reaches(self, token: int, rest: Sequence[int]) -> bool:
        """Whether a quick search finds a completion that fits behind a token."""
        child, room = self._matcher.deep_copy(), self._room - 1
        if not child.consume_token(token):
            return False
        found = self._grammar.search.find(child, room, rest, WIDTHS[:1])
        return found is not None and len(found) <= room

    def _loops(self, rest: Sequence[int], beyond_ascii: bool) -> NDArray[np.int32]:
        """Tokens of nothing but bytes behind each of which `rest` completes the text, packed.

        Args:
            rest: The completion.
            beyond_ascii: Whether there is room for the bytes that a character may still lack.
        """
        words = self._grammar.vocabulary
        good = np.full(256, beyond_ascii and self._takes_beyond_ascii(rest))
        near = list(rest[:2])  # what follows was checked, and is again at the next place
        takes, whole = self._matcher.validate_tokens, 1 + len(near)
        good[:128] = False
        for byte, token in words.ascii_tokens(self.bits):
            good[byte] = takes([token, *near]) == whole
        good_bits = np.packbits(good, bitorder="little").view(np.uint64)
        marks = np.zeros(32 * words.words, dtype=bool)
        beside = ~good_bits
        others = words.byte_sets[0] & beside[0]
        for part in range(1, 4):
            others |= words.byte_sets[part] & beside[part]
        marks[: words.size] = others == 0
        return np.packbits(marks, bitorder="little").view(np.int32)

    def _takes_beyond_ascii(self, rest: Sequence[int]) -> bool:
        single = self._grammar.vocabulary.single
        path = [single[byte] for byte in "\u00e9".encode()]
        return -1 not in path and self._takes([*path, *rest])


def _rewritten(grammar: Compiled, room: int, tokens: Sequence[int]) -> Sentence:
    text = Sentence(grammar, room)
    for token in tokens:
        text.write(token)
    return text

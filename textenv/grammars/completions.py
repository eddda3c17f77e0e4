"""Short ways to finish a text of a grammar, searched on copies of a matcher.

llguidance says what may come next and nothing of how far the end is. So the end is searched: layer
by layer, one token more in each, with the few states kept that leave the fewest choices, since
what closes a part leaves fewer than what goes on with it. What was found is checked token by token.
It is the shortest wherever the vocabulary is small and the layers fit; else it may be longer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.grammars.vocabulary import LONGEST, Vocabulary

FEW = 64
"""Masks of at most this many tokens are tried in full."""

WIDTHS = (8, 64)
"""States kept of a layer; the second is tried where the first finds nothing."""

LAYERS = 256
"""Longest completion that is looked for, in tokens."""


def allowed(matcher: Any, vocabulary: Vocabulary) -> NDArray[np.int32]:
    """What may come next, packed, shape (words,), int32."""
    bits = np.zeros(vocabulary.words, dtype=np.int32)
    matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
    return bits


def numbers(bits: NDArray[np.int32]) -> NDArray[np.intp]:
    """The ids in a packed mask, in their order."""
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))


def count(bits: NDArray[np.int32]) -> int:
    """How many ids a packed mask holds."""
    return int(np.bitwise_count(bits.view(np.uint32)).sum())  # of signed ones it counts |x|


def finishes(matcher: Any, path: Sequence[int]) -> bool:
    """Whether these tokens, a stop token the last of them, finish a text."""
    if len(path) == 1:  # a matcher to which nothing can be added refuses even this one
        return bool(matcher.is_accepting())
    return bool(matcher.validate_tokens(list(path)) == len(path))


def marked(bits: NDArray[np.int32], token: int) -> bool:
    """Whether a packed mask holds a token."""
    return bool(bits[token >> 5] >> (token & 31) & 1)


class Search:
    """Looks for completions under one vocabulary."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary

    def find(
        self,
        matcher: Any,
        limit: int = LAYERS,
        known: Sequence[int] = (),
        widths: Sequence[int] = WIDTHS,
    ) -> list[int] | None:
        """Tokens that finish the text, the stop token the last of them; None if none is found.

        Args:
            matcher: Stays as it is.
            limit: Longest completion of interest, in single bytes.
            known: A completion of an earlier state of this text: its end often serves again.
            widths: States kept of a layer, at each try.
        """
        ends = self._ends(known)
        for width in widths:
            path = self._beam(matcher, min(limit, LAYERS), width, ends)
            if path is not None:
                return self._fewer(matcher, path)
        return None

    def _ends(self, known: Sequence[int]) -> list[list[int]]:
        """Ends of a completion, the shortest first; without one, the stop token alone."""
        parts = [*self.vocabulary.parts(known[:-1]), self.vocabulary.stop]
        return [parts[begin:] for begin in range(len(parts) - 1, -1, -1)]

    def _beam(
        self, matcher: Any, limit: int, width: int, ends: Sequence[Sequence[int]]
    ) -> list[int] | None:
        layer: list[tuple[Any, list[int]]] = [(matcher, [])]
        for _ in range(limit + 1):
            found = [[*path, *end] for state, path in layer for end in ends if finishes(state, end)]
            if found:
                return min(found, key=len)
            layer = self._best(layer, width)
        return None

    def _best(
        self, layer: Sequence[tuple[Any, list[int]]], width: int
    ) -> list[tuple[Any, list[int]]]:
        """The states one token further on that leave the fewest choices, `width` of them."""
        following: list[tuple[bool, int, Any, list[int]]] = []
        for state, path in layer:
            own, seen = allowed(state, self.vocabulary), set[bytes]()
            for token in self.candidates(own, width == WIDTHS[0]):
                child = state.deep_copy()
                if not child.consume_token(token):
                    continue  # the copy is of no use any more
                bits = allowed(child, self.vocabulary)
                mask = bits.tobytes()
                if mask in seen:  # of two that can go on alike, the first
                    continue
                seen.add(mask)
                if choices := count(bits):
                    again = np.array_equal(bits, own)  # it goes on with the same part
                    following.append((again, choices, child, [*path, token]))
        following.sort(key=lambda one: one[:2])
        return [(child, path) for _, _, child, path in following[:width]]

    def candidates(self, bits: NDArray[np.int32], plain: bool = True) -> Iterator[int]:
        """Tokens worth trying of a mask: all if they are few, else single bytes, or `plain` ones."""
        if count(bits) <= FEW:
            tried = numbers(bits)
        elif plain:
            tried = self.vocabulary.plain
        else:
            tried = np.array(sorted({*self.vocabulary.single, *self.vocabulary.plain} - {-1}))
        for token in tried.tolist():
            if marked(bits, token) and not marked(self.vocabulary.is_stop, token):
                yield token

    def _fewer(self, matcher: Any, path: Sequence[int]) -> list[int]:
        """The same text with fewer tokens: the longest that fits, at every place."""
        words = self.vocabulary
        text = b"".join(words.bytes_of[token] or b"" for token in path[:-1])
        state, written, begin = matcher.deep_copy(), list[int](), 0
        while begin < len(text):
            for length in range(min(LONGEST, len(text) - begin), 0, -1):
                token = words.ids.get(text[begin : begin + length], -1)
                if token >= 0 and state.validate_tokens([token]) == 1:
                    break
            else:
                return list(path)
            state.consume_token(token)
            written.append(token)
            begin += length
        return [*written, words.stop] if len(written) < len(path) else list(path)

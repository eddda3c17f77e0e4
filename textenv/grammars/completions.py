"""Short ways to finish a text of a grammar, searched on copies of a matcher.

llguidance says what may come next and nothing of how far the end is. So the end is searched: layer
by layer, one token more in each, with a few states kept that differ in what may come next. What was
found is checked token by token. It is the shortest where the layers fit; else it may be longer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textenv.grammars.vocabulary import LONGEST, Vocabulary

FEW = 64
"""Masks of at most this many tokens are tried in full."""

WIDTHS = (16, 64)
"""States kept of a layer; the second is tried where the first finds nothing."""

DISTINCT = 16
"""Of more tokens than this those with equal masks behind them are taken for equal: one is kept."""

LAYERS = 256
"""Longest completion that is looked for, in tokens."""


def allowed(matcher: Any, vocabulary: Vocabulary) -> NDArray[np.int32]:
    """What may come next, packed, shape (words,), int32."""
    bits = np.zeros(vocabulary.words, dtype=np.int32)
    matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
    return bits


def numbers(bits: NDArray[np.int32]) -> NDArray[np.intp]:
    """The ids in a packed mask, in their order."""
    places = bits.nonzero()[0]  # few of thousands, mostly
    marks = np.unpackbits(bits[places].view(np.uint8), bitorder="little").nonzero()[0]
    return (places[marks >> 5] << 5) + (marks & 31)


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


class _State(NamedTuple):
    """Where a search has come to.

    Attributes:
        matcher: A copy that has read the path.
        path: The tokens to there.
        bits: What may come next, packed.
        masks: The masks on the way.
        again: How often one of them came again.
    """

    matcher: Any
    path: tuple[int, ...] = ()
    bits: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
    masks: frozenset[bytes] = frozenset()
    again: int = 0


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
        first = allowed(matcher, self.vocabulary)
        layer = [_State(matcher, (), first, frozenset([first.tobytes()]))]
        for _ in range(limit + 1):
            for end in ends:  # the shortest first
                for state in layer:
                    if finishes(state.matcher, end):
                        return [*state.path, *end]
            tried = [(s, [*self.candidates(s.bits, width == WIDTHS[0])]) for s in layer]
            # Masks take the most time, and what is one token from an end is found without them.
            bridged = [one for state, tokens in tried if (one := _bridged(state, tokens, ends[1:]))]
            if bridged:
                return min(bridged, key=len)
            layer = self._best(tried, width)
            if not layer:
                return None
        return None

    def _best(self, tried: Sequence[tuple["_State", Sequence[int]]], width: int) -> list["_State"]:
        """Of the states one token further on `width` that differ."""
        following: list[_State] = []
        for state, tokens in tried:
            seen = set[bytes]()
            for token in tokens:
                child = state.matcher.deep_copy()
                if not child.consume_token(token):
                    continue  # the copy is of no use any more
                bits = allowed(child, self.vocabulary)
                mask = bits.tobytes()
                if not bits.any() or (mask in seen and len(tokens) > DISTINCT):
                    continue
                seen.add(mask)
                is_free = count(bits) > DISTINCT  # as in the middle of a string
                again = state.again + (is_free and mask in state.masks)
                masks = state.masks | {mask}
                following.append(_State(child, (*state.path, token), bits, masks, again))
        # Of those with equal masks the ones that were seldom in such a place before; and in turns
        # from each mask, since nothing says which of them leads to an end.
        following.sort(key=lambda state: state.again)
        turns, alike = list[tuple[int, int, _State]](), Counter[bytes]()
        for number, state in enumerate(following):
            alike[mask := state.bits.tobytes()] += 1
            turns.append((alike[mask], number, state))
        return [state for _, _, state in sorted(turns, key=lambda turn: turn[:2])[:width]]

    def candidates(self, bits: NDArray[np.int32], plain: bool = True) -> Iterator[int]:
        """Tokens worth trying of a mask: all if few, else single bytes, or `plain` ones."""
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


def _bridged(
    state: _State, tokens: Sequence[int], ends: Sequence[Sequence[int]]
) -> list[int] | None:
    """The path with one of `tokens` and the shortest of `ends` that finish the text."""
    takes = state.matcher.validate_tokens
    begins = {end[0] for end in ends}
    pairs = {(a, b) for b in begins for a in tokens if takes([a, b]) == 2}
    for end in ends:
        for token in tokens:
            if (token, end[0]) in pairs and takes([token, *end]) == 1 + len(end):
                return [*state.path, token, *end]
    return None

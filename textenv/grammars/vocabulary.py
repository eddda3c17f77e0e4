"""A tokenizer's vocabulary as llguidance reads it."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import GrammarError
from textenv.imports import optional
from textenv.tokenizers.base import Tokenizer, bytes_of_tokens
from textenv.tokenizers.texts import encode_answer

PLAIN = b" \n" + bytes(b for b in range(33, 127) if not chr(b).isalnum()) + b"01aA"
"""What is tried where too many tokens may follow: whatever may end a part, and one of each kind."""

LONGEST = 16
"""Longest token, in bytes, that is looked for when a completion is written with fewer tokens."""

_KEPT = 8
_made: "OrderedDict[Any, Vocabulary]" = OrderedDict()


class Vocabulary:
    """The tokens of a tokenizer, some of which may write the texts of a grammar.

    Args:
        tokenizer: Says which bytes its tokens are.
        stop_tokens: Ids that end a text.
        forbidden: Ids that are never chosen.

    Attributes:
        bytes_of: The bytes of each id; None for those that write no text.
        stop: One of the ids that end a text.
        words: Numbers of 32 bits that hold a mask.
        is_stop: Which tokens end a text, packed, shape (words,), int32.

    Raises:
        TokenizerError: The tokenizer does not say which bytes its tokens are.
        GrammarError: Nothing ends a text.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_tokens: Sequence[int], forbidden: Sequence[int] = ()
    ):
        no_text = {*stop_tokens, *forbidden}
        ends = [token for token in stop_tokens if token not in set(forbidden)]
        if not ends:
            raise GrammarError(
                "a text of a grammar is ended by a stop token, and there is none that may be "
                "chosen: pass stop_tokens=[ids that end an answer]"
            )
        found = bytes_of_tokens(tokenizer)
        self.bytes_of = [None if i in no_text or not b else b for i, b in enumerate(found)]
        self.name, self.size, self.stop = tokenizer.name, tokenizer.vocab_size, ends[0]
        self.words = (self.size + 31) // 32
        self.is_stop = self.packed(ends)
        self._ends, self._encode = ends, partial(encode_answer, tokenizer)
        self._arguments = tokenizer, tuple(stop_tokens), tuple(forbidden)

    def __reduce__(self) -> Any:
        return vocabulary_of, self._arguments

    def __deepcopy__(self, memo: object) -> "Vocabulary":
        return self  # nothing in it ever changes

    def packed(self, tokens: Sequence[int]) -> NDArray[np.int32]:
        """A mask of these tokens, shape (words,), int32."""
        marks = np.zeros(32 * self.words, dtype=bool)
        marks[tokens] = True
        return np.packbits(marks, bitorder="little").view(np.int32)

    @cached_property
    def native(self) -> Any:
        """The form of llguidance, which takes a tenth of a second for 50,000 tokens."""
        with optional("llguidance", extra="grammar", purpose="a grammar"):
            from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_Described(self, self._encode)), eos_token=self._ends)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """The first id of each sequence of bytes."""
        return {b: i for i, b in reversed([*enumerate(self.bytes_of)]) if b is not None}

    @cached_property
    def single(self) -> list[int]:
        """The id of each byte by itself; -1 where there is none."""
        return [self.ids.get(bytes([byte]), -1) for byte in range(256)]

    @cached_property
    def plain(self) -> NDArray[np.int64]:
        """Ids of the bytes in `PLAIN`, and of what ends a text."""
        alone = {self.single[byte] for byte in PLAIN} - {-1}
        return np.array(sorted({self.stop, *alone}))

    @cached_property
    def byte_sets(self) -> NDArray[np.uint64]:
        """Which bytes each token has, 256 bits, shape (4, size); all where it writes no text."""
        sets = np.zeros((4, self.size), dtype=np.uint64)
        sets[:, [i for i, b in enumerate(self.bytes_of) if b is None]] = ~np.uint64(0)
        text = np.frombuffer(b"".join(b or b"" for b in self.bytes_of), dtype=np.uint8)
        owner = np.repeat(np.arange(self.size), [len(b or b"") for b in self.bytes_of])
        np.bitwise_or.at(sets, (text >> 6, owner), np.uint64(1) << (text & 63).astype(np.uint64))
        return sets

    def ascii_tokens(self, bits: NDArray[np.int32]) -> list[tuple[int, int]]:
        """The bytes of ASCII that a packed mask holds as tokens of their own, and these tokens."""
        tokens = np.array(self.single[:128])
        may = (tokens >= 0) & (bits[tokens >> 5] >> (tokens & 31) & 1).astype(bool)
        bytes_ = may.nonzero()[0]
        return [*zip(bytes_.tolist(), tokens[bytes_].tolist(), strict=True)]

    def parts(self, tokens: Sequence[int]) -> list[int]:
        """The same text in single bytes as far as there are tokens for them."""
        several: list[int] = []
        for token in tokens:
            alone = [self.single[byte] for byte in self.bytes_of[token] or b""]
            several += [token] if -1 in alone or not alone else alone
        return several


class _Described:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, encode: Any):
        self.eos_token_id = vocabulary.stop
        # What writes no text gets a name, as special tokens have, so that no text can be it.
        self.tokens = [
            f"<|{i}|>".encode() if b is None else b for i, b in enumerate(vocabulary.bytes_of)
        ]
        self.special_token_ids = [i for i, b in enumerate(vocabulary.bytes_of) if b is None]
        self._encode, self._vocabulary = encode, vocabulary

    def __call__(self, text: bytes) -> list[int]:
        """Ids of a text; where there is no choice llguidance allows nothing but their first.

        So they must have exactly its bytes. Some vocabularies put a space in front, or have words
        that may not be chosen.
        """
        words = self._vocabulary
        try:
            ids: list[int] = self._encode(text.decode())
        except ValueError:  # half a character, or one that the vocabulary lacks
            ids = []
        if b"".join(words.bytes_of[token] or b"" for token in ids) == text:
            return ids
        ids, begin = [], 0
        while begin < len(text):
            for length in range(min(LONGEST, len(text) - begin), 0, -1):
                token = words.ids.get(text[begin : begin + length])
                if token is not None:
                    break
            else:
                return ids
            ids.append(token)
            begin += length
        return ids


def vocabulary_of(
    tokenizer: Tokenizer, stop_tokens: Sequence[int], forbidden: Sequence[int]
) -> Vocabulary:
    """The `Vocabulary` of these arguments; the last few are kept.

    Raises:
        TokenizerError: See `Vocabulary`.
        GrammarError: See `Vocabulary`.
    """
    key = (tokenizer.fingerprint, tuple(stop_tokens), tuple(sorted(forbidden)))
    if key not in _made:
        _made[key] = Vocabulary(tokenizer, stop_tokens, forbidden)
    _made.move_to_end(key)
    while len(_made) > _KEPT:
        _made.popitem(last=False)
    return _made[key]

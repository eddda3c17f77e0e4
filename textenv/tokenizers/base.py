"""The interface of a tokenizer."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        name: A string from which `load_tokenizer` makes the same tokenizer again.
        vocab_size: Number of ids; every id in `range(vocab_size)` can be decoded.
        stop_token: The id that ends an answer, or None.
        fingerprint: Hex digest of the vocabulary; tokenizers with equal fingerprints give equal ids
            for equal texts.
    """

    @property
    def name(self) -> str:
        """The string from which `load_tokenizer` makes the same tokenizer again."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def stop_token(self) -> int | None:
        """The id that ends an answer, or None."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of the vocabulary."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special token, whatever the text spells."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; ids that are not valid text become U+FFFD, and nothing raises."""
        ...


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of `text` as a prompt; see `prompt_frame`."""
    before, after = prompt_frame(tokenizer)
    return [*before, *tokenizer.encode(text), *after]


def prompt_frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after every prompt; both are empty except in a `SourceTokenizer`."""
    frame: tuple[tuple[int, ...], tuple[int, ...]] = getattr(tokenizer, "frame", ((), ()))
    return frame

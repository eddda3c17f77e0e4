"""The interface of a tokenizer, and the file that one is saved in."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from textenv.errors import TokenizerError


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        name: A string from which `load_tokenizer` makes the same tokenizer again.
        vocab_size: Number of ids; every id in `range(vocab_size)` can be decoded.
        stop_token: The id that ends an answer, or None.
        stop_tokens: All ids that end an answer, `stop_token` first; may be left out if there is no
            other one. See `stop_tokens_of`.
        unused_tokens: Ids that stand for no token; may be left out if there is none. A policy never
            chooses them. See `unused_tokens_of`.
        frame: Ids before and after every prompt; may be left out. See `prompt_frame`.
        is_boundary: A function of an id: whether the text of what stands behind it is the same as
            without it. It may be left out; decoding answers is quicker with it.
        vocabulary_bytes: A function without arguments: the bytes that each id adds to a text, None
            for those that are no text. It may be left out; grammars need it. See `bytes_of_tokens`.
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


def stop_tokens_of(tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """All ids that end an answer; the first one is what fine-tuning puts behind answers."""
    several: tuple[int, ...] | None = getattr(tokenizer, "stop_tokens", None)
    if several is not None:
        return several
    own = None if tokenizer is None else tokenizer.stop_token
    return () if own is None else (own,)


def unused_tokens_of(tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Ids below `vocab_size` that stand for no token."""
    unused: tuple[int, ...] = getattr(tokenizer, "unused_tokens", ())
    return unused


def prompt_frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after every prompt, such as `<s>` before it; both are empty in most."""
    frame: tuple[tuple[int, ...], tuple[int, ...]] = getattr(tokenizer, "frame", ((), ()))
    return frame


def bytes_of_tokens(tokenizer: Tokenizer) -> list[bytes | None]:
    """The bytes that each id adds to the text before it, one entry for each of `vocab_size`.

    None stands for ids that are no text: what ends an answer, other special tokens and ids that
    the vocabulary skips.

    Raises:
        TokenizerError: The tokenizer does not say, or what an id adds depends on its neighbours.
    """
    own = getattr(tokenizer, "vocabulary_bytes", None)
    if own is None:
        raise TokenizerError(
            f"the tokenizer {tokenizer.name!r} does not say which bytes its tokens are: give it a "
            "method vocabulary_bytes(), or take another one, such as 'bytes'"
        )
    of_ids: list[bytes | None] = own()
    return of_ids


def new_file(path: str | os.PathLike[str]) -> Path:
    """Where a tokenizer is to be saved; the folder is made.

    Raises:
        TokenizerError: `path` does not end in `.json`, so `load_tokenizer` would not know the file.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise TokenizerError(f"{path}: a tokenizer's file must end in .json")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

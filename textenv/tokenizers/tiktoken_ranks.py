"""Byte-level vocabularies run by tiktoken: GPT-2's, GPT-4's, or one of your own in a JSON file."""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tiktoken

from textenv.errors import TokenizerError
from textenv.files import reason
from textenv.tokenizers.base import new_file

STOP_TEXT = "<|endoftext|>"
_FORMAT_VERSION = 1
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


class TiktokenTokenizer:
    """Any `tiktoken.Encoding`; `<|endoftext|>`, if it has one, ends an answer.

    Args:
        encoding: The vocabulary. It must hold all 256 bytes, or some text could not be encoded.
        name: Its name for `load_tokenizer`; by default the encoding's own name.

    Raises:
        TokenizerError: The vocabulary does not hold every byte.
    """

    def __init__(self, encoding: tiktoken.Encoding, name: str | None = None) -> None:
        ranks = encoding._mergeable_ranks
        missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
        if missing:
            raise TokenizerError(
                f"vocabulary {name or encoding.name!r} has no token for the bytes {missing}"
            )
        self.name = name or encoding.name
        self.vocab_size = encoding.n_vocab
        self.stop_token = encoding._special_tokens.get(STOP_TEXT)
        used = {*ranks.values(), *encoding._special_tokens.values()}
        self.unused_tokens = tuple(sorted(set(range(self.vocab_size)) - used))
        self._encoding = encoding

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; `<|endoftext|>` spelt out in it is encoded like any other word."""
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens are spelt out, ids without text become U+FFFD."""
        try:
            return self._encoding.decode(ids)
        except KeyError:  # rare: cl100k_base, for one, has 16 ids that stand for nothing
            return b"".join(map(self._token_bytes, ids)).decode("utf-8", errors="replace")

    def is_boundary(self, token: int) -> bool:
        """Whether no character can continue behind `token`."""
        return self._token_bytes(token)[-1] < 128

    def vocabulary_bytes(self) -> list[bytes | None]:
        """The bytes of each id; None for special tokens and those that stand for nothing."""
        of_ids: list[bytes | None] = [None] * self.vocab_size
        for token, rank in self._encoding._mergeable_ranks.items():
            of_ids[rank] = token
        return of_ids

    def _token_bytes(self, token: int) -> bytes:
        try:
            return self._encoding.decode_single_token_bytes(token)
        except KeyError:
            return _REPLACEMENT

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the tokens, the pattern that splits words and the special tokens."""
        return hashlib.sha256(json.dumps(self._contents(), sort_keys=True).encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to one JSON file, which `load_tokenizer(path)` reads.

        Args:
            path: Path of the file; it must end in `.json`, so that `load_tokenizer` knows that it
                is a file.

        Raises:
            TokenizerError: `path` has another ending.
        """
        path = new_file(path)
        path.write_text(json.dumps({"version": _FORMAT_VERSION, **self._contents()}, indent=0))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "TiktokenTokenizer":
        """The tokenizer in a file written by `save`; its name is the file's path.

        Raises:
            TokenizerError: The file does not exist, or holds something else.
        """
        try:
            contents = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise TokenizerError(
                f"{path}: no tokenizer's file can be read there: {reason(error)}"
            ) from error
        except ValueError as error:
            raise TokenizerError(f"{path} is not JSON: {error}") from error
        if not isinstance(contents, dict) or contents.get("version") != _FORMAT_VERSION:
            raise TokenizerError(
                f"{path} is not a tokenizer saved by textenv in format {_FORMAT_VERSION}; "
                "a folder with a Hugging Face tokenizer is loaded as 'hf:<folder>'"
            )
        try:
            encoding = tiktoken.Encoding(
                str(path),
                pat_str=contents["pattern"],
                mergeable_ranks={
                    base64.b64decode(token, validate=True): rank
                    for rank, token in enumerate(contents["tokens"])
                    if token is not None
                },
                special_tokens=contents["special_tokens"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TokenizerError(f"{path} is damaged: {error!r}") from error
        return cls(encoding)

    def _contents(self) -> dict[str, object]:
        """Everything that defines the vocabulary; tokens in the order of ids, None for a gap."""
        ranks = self._encoding._mergeable_ranks
        tokens: list[str | None] = [None] * (max(ranks.values()) + 1)
        for token, rank in ranks.items():
            tokens[rank] = base64.b64encode(token).decode()
        return {
            "pattern": self._encoding._pat_str,
            "special_tokens": self._encoding._special_tokens,
            "tokens": tokens,
        }

    def __deepcopy__(self, memo: object) -> "TiktokenTokenizer":
        return self  # nothing in it ever changes

    def __repr__(self) -> str:
        return f"TiktokenTokenizer({self.name!r}, vocab_size={self.vocab_size})"

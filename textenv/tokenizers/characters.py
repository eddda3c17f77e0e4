"""One token for each character, for small experiments such as nanoGPT's on Shakespeare."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from textenv.errors import TokenizerError
from textenv.tokenizers.base import new_file

FORMAT = "textenv characters 1"


class CharacterTokenizer:
    """The characters of an alphabet in the order given, then a stop token.

    Args:
        alphabet: Every character that can be written, each once.
        name: Its name for `load_tokenizer`: the path of its file.

    Raises:
        TokenizerError: A character occurs twice, or the alphabet is empty.

    >>> CharacterTokenizer("abc").encode("cab")
    [2, 0, 1]
    """

    def __init__(self, alphabet: str, name: str = "characters"):
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise TokenizerError(
                f"an alphabet needs different characters, at least one; it is {alphabet!r}"
            )
        self.alphabet, self.name = alphabet, name
        self.vocab_size = len(alphabet) + 1
        self.stop_token = len(alphabet)
        self._ids = {character: i for i, character in enumerate(alphabet)}

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> "CharacterTokenizer":
        """The vocabulary of all characters in `texts`, in the order of Unicode."""
        return cls("".join(sorted(set().union(*map(set, texts)))))

    def encode(self, text: str) -> list[int]:
        """One id for each character.

        Raises:
            TokenizerError: A character is not in the alphabet.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise TokenizerError(
                f"the character {error.args[0]!r} is not among the {len(self.alphabet)} of this "
                "vocabulary: make it from texts that have it, or use 'bytes', which can write all"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The characters of `ids`; the stop token has none, other ids become U+FFFD."""
        return "".join(self._character(int(i)) for i in ids)

    def _character(self, token: int) -> str:
        if token == self.stop_token:
            return ""
        return (
            self.alphabet[token] if 0 <= token < len(self.alphabet) else "\N{REPLACEMENT CHARACTER}"
        )

    def vocabulary_bytes(self) -> list[bytes | None]:
        """Each character in UTF-8; the stop token is no text."""
        return [*(c.encode("utf-8", errors="replace") for c in self.alphabet), None]

    def is_boundary(self, token: int) -> bool:
        """No token says anything about another one."""
        return True

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the alphabet."""
        return hashlib.sha256(f"{FORMAT}:{self.alphabet}".encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to a file that ends in `.json`, which `load_tokenizer` reads.

        Raises:
            TokenizerError: `path` has another ending.
        """
        path = new_file(path)
        path.write_text(json.dumps({"format": FORMAT, "alphabet": self.alphabet}))

    @classmethod
    def from_contents(cls, contents: dict[str, Any], name: str) -> "CharacterTokenizer":
        """The tokenizer that `save` wrote, from the contents of its file."""
        return cls(contents["alphabet"], name)

    def __deepcopy__(self, memo: object) -> "CharacterTokenizer":
        return self  # nothing in it ever changes

    def __repr__(self) -> str:
        return f"CharacterTokenizer({self.alphabet!r})"

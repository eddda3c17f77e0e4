"""The smallest vocabulary that can write any text: the 256 bytes of UTF-8 and a stop token."""

import hashlib
from collections.abc import Sequence


class BytesTokenizer:
    """One token per byte of UTF-8; id 256 ends an answer.

    It needs no file and no training, so examples and tests start with it. Its sequences are about
    four times as long as those of a trained vocabulary.
    """

    name = "bytes"
    vocab_size = 257
    stop_token = 256
    fingerprint = hashlib.sha256(b"256 bytes of UTF-8, then one stop token").hexdigest()

    def encode(self, text: str) -> list[int]:
        """Bytes of `text`; a lone surrogate, which UTF-8 cannot hold, becomes "?"."""
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; the stop token has none, and invalid UTF-8 becomes U+FFFD."""
        try:
            data = bytes([*ids])  # a list, since bytes() of an array would read its memory
        except ValueError:  # an id above 255
            data = bytes(i for i in ids if 0 <= i < 256)
        return data.decode("utf-8", errors="replace")

    def vocabulary_bytes(self) -> list[bytes | None]:
        """Each id is its byte; the stop token is no text."""
        return [*(bytes([byte]) for byte in range(256)), None]

    def is_boundary(self, token: int) -> bool:
        """Whether no character can continue behind `token`."""
        return token < 128

    def __deepcopy__(self, memo: object) -> "BytesTokenizer":
        return self  # nothing in it ever changes

    def __repr__(self) -> str:
        return "BytesTokenizer()"

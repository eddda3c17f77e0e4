"""A vocabulary of a few letters, for environments that can be traced by hand or enumerated."""

from collections.abc import Sequence


class Letters:
    """Token i is the i-th letter of the alphabet; with `stop`, one more token ends an answer."""

    name = "letters"

    def __init__(self, letters: int, stop: bool = False):
        self.vocab_size = letters + stop
        self.stop_token = letters if stop else None
        self.fingerprint = f"{letters} letters, stop {stop}"
        self._letters = letters

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + i) for i in ids if i < self._letters)

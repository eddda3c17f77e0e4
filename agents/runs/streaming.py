"""Text of tokens one by one, where a character may need several of them.

Byte-level vocabularies cut characters beyond ASCII into several tokens, of which the first ones
alone are no text. What could still become another character is held back until it is one.
"""

from collections.abc import Iterable

from textenv import Tokenizer

REPLACEMENT = "\ufffd"
"""What a tokenizer decodes bytes to that are no text, or not yet."""

LONGEST_PART = 3
"""Bytes of a character of UTF-8 that may have come while it is not complete."""


class TextStream:
    """Turns the tokens of one answer into text as they come.

    All tokens so far are decoded together, since some tokenizers treat the first one differently.

    Args:
        tokenizer: Of the tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take the next token; gives the text that is certain now, perhaps none."""
        self.tokens.append(token)
        text = self.tokenizer.decode(self.tokens)
        uncertain = len(text) - len(text.rstrip(REPLACEMENT))
        return self._show(text[: len(text) - min(uncertain, LONGEST_PART)])

    def finish(self) -> str:
        """The rest, with what has not become a character as U+FFFD."""
        return self._show(self.tokenizer.decode(self.tokens))

    def _show(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new


def token_texts(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """The text of each token; joined they are the text of all.

    A character of several tokens stands at the last one of them, and the others have no text.
    """
    stream = TextStream(tokenizer)
    texts = [stream.push(token) for token in tokens]
    if texts:
        texts[-1] += stream.finish()
    return texts


def visible(text: str, kept: str = "\n\t") -> str:
    r"""`text` with control characters but for `kept`, line ends and tabs, spelt out.

    An untrained policy writes any byte, and some would repaint the terminal or break a page.

    >>> visible("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)

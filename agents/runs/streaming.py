"""Text of tokens one by one, where a character may need several of them.

Byte-level vocabularies cut characters beyond ASCII into several tokens, of which the first ones
alone are not text. What may still become a character is held back until it is complete.
"""

from collections.abc import Iterable

from textenv import Tokenizer

REPLACEMENT = "\ufffd"
"""A tokenizer decodes bytes to this character if they are not text, or not yet."""

LONGEST_PART = 3
"""Most bytes of an incomplete UTF-8 character."""


class TextStream:
    """Turns the tokens of one answer into text, one by one.

    All tokens so far are decoded together, since some tokenizers treat the first one differently.

    Args:
        tokenizer: Decodes the tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take the next token; gives the text that is certain now; it may be empty."""
        self.tokens.append(token)
        text = self.tokenizer.decode(self.tokens)
        uncertain = len(text) - len(text.rstrip(REPLACEMENT))
        return self._show(text[: len(text) - min(uncertain, LONGEST_PART)])

    def finish(self) -> str:
        """The rest of the text; an incomplete character becomes U+FFFD."""
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
    r"""`text` with control characters escaped, except those in `kept`.

    An untrained policy writes any byte, and some would repaint the terminal or break a page.

    >>> visible("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)

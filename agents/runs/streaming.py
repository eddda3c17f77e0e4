"""Text of tokens one by one, where a character may need several of them.

Byte-level vocabularies cut characters beyond ASCII into several tokens, of which the first ones
alone are not text. What may still become a character is held back until it is complete.
"""

from collections.abc import Iterable, Sequence

from textenv import Tokenizer
from textenv.stop_strings import until
from textenv.tokenizers import decode_answer, decode_prompt
from textenv.tokenizers.texts import REPLACEMENT as REPLACEMENT
from textenv.tokenizers.texts import certain


class TextStream:
    """Turns the tokens of one answer into text, one by one.

    All tokens so far are decoded together and behind the prompt, since some tokenizers treat the
    first token of a text differently.

    Args:
        tokenizer: Decodes the tokens.
        prompt_tokens: Ids of the prompt.
        stop_strings: Texts that end the answer: neither they nor what follows is given out, and
            what may become one is held back.
        min_new_tokens: Tokens that an answer has at least; strings that end before are text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_tokens: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        min_new_tokens: int = 0,
    ):
        self.tokenizer, self.prompt_tokens = tokenizer, prompt_tokens
        self._stop_strings, self._min_new_tokens = stop_strings, min_new_tokens
        self._until: str | None = None  # the whole text, once a stop string has ended it
        self._prompt = certain(decode_prompt(tokenizer, prompt_tokens))
        self.tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take the next token; gives the text that is certain now; it may be empty."""
        known = len(certain(self._text())) if self._stop_strings else 0
        self.tokens.append(token)
        if self._until is None and len(self.tokens) >= self._min_new_tokens:
            self._until = until(self._stop_strings, self._text(), known)
        text = certain(self._text())
        held = 0 if self._until is not None else self._held_back(text)
        return self._show(text[: len(text) - held])

    def finish(self) -> str:
        """The rest of the text; an incomplete character becomes U+FFFD."""
        return self._show(self._text())

    def _text(self) -> str:
        if self._until is not None:
            return self._until
        return decode_answer(self.tokenizer, self.prompt_tokens, self.tokens, self._prompt)

    def _held_back(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a stop string."""
        beginnings = [s[:n] for s in self._stop_strings for n in range(1, len(s))]
        return max((len(one) for one in beginnings if text.endswith(one)), default=0)

    def _show(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new


def token_texts(
    tokenizer: Tokenizer, tokens: Iterable[int], prompt_tokens: Sequence[int] = ()
) -> list[str]:
    """The text of each token; joined they are the text of all.

    A character of several tokens stands at the last one of them, and the others have no text.
    """
    stream = TextStream(tokenizer, prompt_tokens)
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

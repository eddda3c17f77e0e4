"""Prompts of encoder-decoders: framed for their encoder, with a mark where the answer begins."""

import hashlib
from collections.abc import Sequence

from textenv.errors import TokenizerError
from textenv.tokenizers.base import Tokenizer, stop_tokens_of, unused_tokens_of


class SourceTokenizer:
    """A tokenizer whose prompts end with a separator; the answer begins after it.

    Only prompts are framed. Answers are encoded by `encode`, which is that of `tokenizer`. The
    fingerprint differs from that of `tokenizer`, since prompts have other ids.

    Args:
        tokenizer: Encodes and decodes.
        before: Ids before every prompt, such as BART's `<s>`.
        after: Ids after every prompt; the last one is the separator. By default the stop token, as
            in T5's tokenizer and most others.

    Attributes:
        frame: `before` and `after`.
        separator: The id that ends a prompt.

    Raises:
        TokenizerError: There is neither an id after the prompt nor a stop token, or the separator
            occurs before the end.

    >>> from textenv.tokenizers import BytesTokenizer, encode_prompt
    >>> encode_prompt(SourceTokenizer(BytesTokenizer()), "hi")
    [104, 105, 256]
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = (), after: Sequence[int] = ()):
        if not after:
            if tokenizer.stop_token is None:
                raise TokenizerError(
                    f"the tokenizer {tokenizer.name!r} has no stop token to end a prompt: "
                    "pass SourceTokenizer(tokenizer, after=[the separator's id])"
                )
            after = [tokenizer.stop_token]
        if after[-1] in (*before, *after[:-1]):
            raise TokenizerError(
                f"the separator {after[-1]} stands at other places of {tokenizer.name!r}'s prompts "
                f"too: before={list(before)}, after={list(after)}; its first place ends a prompt"
            )
        self.tokenizer = tokenizer
        self.frame = tuple(before), tuple(after)
        self.separator = after[-1]
        self.name, self.vocab_size = tokenizer.name, tokenizer.vocab_size
        self.stop_token = tokenizer.stop_token
        self.stop_tokens = stop_tokens_of(tokenizer)
        self.unused_tokens = unused_tokens_of(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Ids of `text` alone; `encode_prompt(tokenizer, text)` frames it."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""
        return self.tokenizer.decode(ids)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the vocabulary and the frame."""
        rules = f"{self.tokenizer.fingerprint} {self.frame}"
        return hashlib.sha256(rules.encode()).hexdigest()

    def __repr__(self) -> str:
        before, after = self.frame
        return f"SourceTokenizer({self.tokenizer!r}, before={before}, after={after})"

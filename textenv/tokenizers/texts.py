"""Prompts and answers: their ids, and the text that the ids of both make together.

The text of an answer depends on what stands before it. In many vocabularies a token holds the space
before its word, and the space is dropped where a text begins: the ids of " cat" alone read "cat".
In vocabularies of bytes an answer may begin in the middle of a character. So answers are encoded
and decoded as what goes on from their prompt.
"""

from collections.abc import Sequence

from textenv.tokenizers.base import Tokenizer, prompt_frame

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""A tokenizer decodes bytes to this character if they are not text, or not yet."""

LONGEST_PART = 3
"""Most bytes of an incomplete UTF-8 character."""


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of `text` as a prompt, framed as the tokenizer frames prompts; see `prompt_frame`.

    If `text` itself begins with the text of these ids, as a chat template may have it, they still
    come once.
    """
    before, after = prompt_frame(tokenizer)
    if before:
        text = text.removeprefix(tokenizer.decode([*before]))
    return [*before, *tokenizer.encode(text), *after]


def decode_prompt(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Text of a prompt's ids without their frame."""
    return tokenizer.decode(_unframed(tokenizer, tokens))


def encode_answer(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text that goes on from another: without a mark that a text begins here."""
    encode = getattr(tokenizer, "encode_further", tokenizer.encode)
    ids: list[int] = encode(text)
    return ids


def decode_answer(
    tokenizer: Tokenizer, prompt_tokens: Sequence[int], tokens: Sequence[int], prompt: str = ""
) -> str:
    """What an answer adds to its prompt: the two texts together are the text of all ids.

    A character that the prompt's ids leave incomplete belongs to the answer.

    There are two exceptions. An encoder-decoder's answer is a text of its own, and so is an answer
    that changes how its prompt is decoded; its text is that of its ids alone.

    Args:
        tokenizer: Decodes.
        prompt_tokens: Ids of the prompt.
        tokens: Ids of the answer without a stop token.
        prompt: The prompt's text, if it is known; this saves decoding it.
    """
    _, after = prompt_frame(tokenizer)
    if after:
        return tokenizer.decode(tokens)
    is_boundary = getattr(tokenizer, "is_boundary", None)
    if is_boundary is not None and len(prompt_tokens) and is_boundary(prompt_tokens[-1]):
        return tokenizer.decode(tokens)
    before = _unframed(tokenizer, prompt_tokens)
    whole = tokenizer.decode([*before, *tokens])
    if prompt and whole.startswith(prompt):
        return whole[len(prompt) :]
    # The prompt may be spelt otherwise: some vocabularies know no capitals, or not all characters.
    decoded = certain(tokenizer.decode(before))
    if whole.startswith(decoded):
        return whole[len(decoded) :]
    return tokenizer.decode(tokens)


def certain(text: str) -> str:
    """`text` without what may be the beginning of a character at its end.

    >>> certain("caf\ufffd")
    'caf'
    """
    uncertain = len(text) - len(text.rstrip(REPLACEMENT))
    return text[: len(text) - min(uncertain, LONGEST_PART)]


def _unframed(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
    """A prompt's ids without those that the tokenizer puts around prompts, where it has them."""
    before, after = prompt_frame(tokenizer)
    ids = list(tokens)
    if before and tuple(ids[: len(before)]) == before:
        del ids[: len(before)]
    if after and tuple(ids[-len(after) :]) == after:
        del ids[-len(after) :]
    return ids

"""Prompts that are longer than the room for them: cut or dropped.

An environment refuses such prompts and lists them. These functions change a source of prompts so
that all of them fit.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import EmptyPromptsError, PromptTooLongError
from textenv.prompts import ListPrompts, Prompt, PromptSource, load_prompts
from textenv.seeding import draw_seed
from textenv.tokenizers import Tokenizer, encode_prompt

MOST_DRAWS = 1000
"""Prompts of a function that are drawn in search of one that fits."""


def cut_long(prompts: Any, tokenizer: Tokenizer, room: int) -> PromptSource:
    """The prompts, and of those that are too long the end.

    The end is nearest to the answer: the question, or the last turn of a chat. A text is cut
    between two characters, so the prompt is again a text; ids are cut as they are.

    Args:
        prompts: Anything that describes prompts; see `load_prompts`.
        tokenizer: The policy's.
        room: Tokens that a prompt may have, 1 or more.

    >>> from textenv.tokenizers import BytesTokenizer
    >>> [p.text for p in cut_long(["2 + 2 =", "1 ="], BytesTokenizer(), 3).prompts]
    ['2 =', '1 =']

    Raises:
        PromptTooLongError: Not even the last character of a prompt fits.
    """
    source = load_prompts(prompts)
    if isinstance(source, ListPrompts):
        return source.with_prompts([_cut(prompt, tokenizer, room) for prompt in source.prompts])
    return _Cut(source, tokenizer, room)


def drop_long(prompts: Any, tokenizer: Tokenizer, room: int) -> PromptSource:
    """The prompts without those that are too long; a function's are drawn anew in their place.

    Args:
        prompts: Anything that describes prompts; see `load_prompts`.
        tokenizer: The policy's.
        room: Tokens that a prompt may have, 1 or more.

    >>> from textenv.tokenizers import BytesTokenizer
    >>> [p.text for p in drop_long(["2 + 2 =", "1 ="], BytesTokenizer(), 3).prompts]
    ['1 =']

    Raises:
        EmptyPromptsError: None is left.
    """
    source = load_prompts(prompts)
    if isinstance(source, ListPrompts):
        kept = [prompt for prompt in source.prompts if _fits(prompt, tokenizer, room)]
        if not kept:
            raise EmptyPromptsError(
                f"none of {len(source.prompts)} prompts fits into {room} tokens: nothing is left"
            )
        return source.with_prompts(kept)

    return _Fitting(source, tokenizer, room)


class _Around:
    """Passes what was scored on to the source within, if that listens; so does its state."""

    def __getattr__(self, name: str) -> Any:
        if name in ("scored", "state_dict", "load_state_dict"):
            return getattr(self.source, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


@dataclass(frozen=True)
class _Cut(_Around):
    """The prompts of another source, cut."""

    source: PromptSource
    tokenizer: Tokenizer
    room: int

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        return [_cut(prompt, self.tokenizer, self.room) for prompt in self.source.draw(seeds)]


@dataclass(frozen=True)
class _Fitting(_Around):
    """Prompts of another source, drawn until they fit."""

    source: PromptSource
    tokenizer: Tokenizer
    room: int

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        drawn = self.source.draw(seeds)
        return [self._one(p, seed) for p, seed in zip(drawn, seeds.tolist(), strict=True)]

    def _one(self, prompt: Prompt, seed: int) -> Prompt:
        for number in range(MOST_DRAWS):
            if _fits(prompt, self.tokenizer, self.room):
                return prompt
            # Of the seed alone: the same seed gives the same prompt, whatever was drawn before.
            (prompt,) = self.source.draw(np.array([draw_seed(seed, number)], dtype=np.uint64))
        raise EmptyPromptsError(f"none of {MOST_DRAWS} prompts fits into {self.room} tokens")


def _length(prompt: Prompt, tokenizer: Tokenizer) -> int:
    if prompt.tokens is not None:
        return len(prompt.tokens)
    return len(encode_prompt(tokenizer, prompt.text))


def _fits(prompt: Prompt, tokenizer: Tokenizer, room: int) -> bool:
    return _length(prompt, tokenizer) <= room


def _cut(prompt: Prompt, tokenizer: Tokenizer, room: int) -> Prompt:
    if _fits(prompt, tokenizer, room):
        return prompt
    if prompt.tokens is not None:
        return replace(prompt, text="", tokens=prompt.tokens[-room:])
    # Half of what may still be cut at a time: where to begin, so that the rest fits.
    too_early, start = 0, len(prompt.text)
    while too_early + 1 < start:
        middle = (too_early + start) // 2
        if _fits(replace(prompt, text=prompt.text[middle:]), tokenizer, room):
            start = middle
        else:
            too_early = middle
    if start == len(prompt.text):
        raise PromptTooLongError(
            f"{prompt.origin or 'a prompt'}: not even the end of {prompt.text[-60:]!r} fits into "
            f"{room} tokens"
        )
    return replace(prompt, text=prompt.text[start:])

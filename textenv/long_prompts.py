"""Prompts that are longer than the room for them: cut or dropped.

An environment refuses such prompts and lists them. These functions change a source of prompts so
that all of them fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.encoding import prompt_ids
from textenv.errors import EmptyPromptsError, PromptTooLongError
from textenv.frames import Frame
from textenv.prompts import ListPrompts, Prompt, PromptSource, load_prompts
from textenv.seeding import draw_seed
from textenv.tokenizers import Tokenizer

MOST_DRAWS = 1000
"""Prompts of a function that are drawn in search of one that fits."""


def cut_long(
    prompts: Any, tokenizer: Tokenizer, room: int, frame: Frame | None = None
) -> PromptSource:
    """The prompts, and of those that are too long the end.

    The end is nearest to the answer: the question, or the last turn of a chat. A text is cut
    between two characters, so the prompt is again a text; ids are cut as they are. Chats lose their
    oldest questions and answers first, and keep a system message.

    Args:
        prompts: Anything that describes prompts; see `load_prompts`.
        tokenizer: The policy's.
        room: Tokens that a prompt may have, its frame included, 1 or more.
        frame: How prompts are wrapped; None for prompts that are read as they are.

    >>> from textenv.tokenizers import BytesTokenizer
    >>> [p.text for p in cut_long(["2 + 2 =", "1 ="], BytesTokenizer(), 3).prompts]
    ['2 =', '1 =']

    Raises:
        PromptTooLongError: Not even the last character of a prompt fits.
        UnframedError: There are messages and there is no frame.
    """
    source, space = load_prompts(prompts), _Space(tokenizer, room, frame)
    if isinstance(source, ListPrompts):
        return source.with_prompts([space.cut(prompt) for prompt in source.prompts])
    return _Cut(source, space)


def drop_long(
    prompts: Any, tokenizer: Tokenizer, room: int, frame: Frame | None = None
) -> PromptSource:
    """The prompts without those that are too long; a function's are drawn anew in their place.

    Args:
        prompts: Anything that describes prompts; see `load_prompts`.
        tokenizer: The policy's.
        room: Tokens that a prompt may have, its frame included, 1 or more.
        frame: How prompts are wrapped; None for prompts that are read as they are.

    >>> from textenv.tokenizers import BytesTokenizer
    >>> [p.text for p in drop_long(["2 + 2 =", "1 ="], BytesTokenizer(), 3).prompts]
    ['1 =']

    Raises:
        EmptyPromptsError: None is left.
        UnframedError: There are messages and there is no frame.
    """
    source, space = load_prompts(prompts), _Space(tokenizer, room, frame)
    if isinstance(source, ListPrompts):
        kept = [prompt for prompt in source.prompts if space.holds(prompt)]
        if not kept:
            raise EmptyPromptsError(
                f"none of {len(source.prompts)} prompts fits into {room} tokens: nothing is left"
            )
        return source.with_prompts(kept)

    return _Fitting(source, space)


@dataclass(frozen=True)
class _Space:
    """The room for a prompt, in tokens of one vocabulary."""

    tokenizer: Tokenizer
    room: int
    frame: Frame | None

    def holds(self, prompt: Prompt) -> bool:
        """Whether a prompt fits, its frame included."""
        name = prompt.origin or "a prompt"
        return len(prompt_ids(prompt, self.tokenizer, self.frame, name)) <= self.room

    def cut(self, prompt: Prompt) -> Prompt:
        """The end of a prompt that fits.

        Raises:
            PromptTooLongError: There is none.
        """
        if self.holds(prompt):
            return prompt
        if prompt.tokens is not None:
            return replace(prompt, text="", tokens=prompt.tokens[-self.room :])
        for begin in _questions(prompt):
            prompt = begin
            if self.holds(prompt):
                return prompt
        # Half of what may still be cut at a time: where to begin, so that the rest fits.
        text = prompt.last_text
        too_early, start = 0, len(text)
        while too_early + 1 < start:
            middle = (too_early + start) // 2
            if self.holds(prompt.with_last_text(text[middle:])):
                start = middle
            else:
                too_early = middle
        if start == len(text):
            raise PromptTooLongError(
                f"{prompt.origin or 'a prompt'}: not even the end of {text[-60:]!r} fits into "
                f"{self.room} tokens"
            )
        return prompt.with_last_text(text[start:])


def _questions(prompt: Prompt) -> Iterator[Prompt]:
    """A chat from each later question on, with its system message."""
    messages = prompt.messages or ()
    system = [one for one in messages[:1] if one["role"] == "system"]
    for begin, message in enumerate(messages):
        if begin > len(system) and message["role"] == "user":
            yield replace(prompt, text="", messages=[*system, *messages[begin:]])


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
    space: _Space

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        return [self.space.cut(prompt) for prompt in self.source.draw(seeds)]


@dataclass(frozen=True)
class _Fitting(_Around):
    """Prompts of another source, drawn until they fit."""

    source: PromptSource
    space: _Space

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        drawn = self.source.draw(seeds)
        return [self._one(p, seed) for p, seed in zip(drawn, seeds.tolist(), strict=True)]

    def _one(self, prompt: Prompt, seed: int) -> Prompt:
        for number in range(MOST_DRAWS):
            if self.space.holds(prompt):
                return prompt
            # Of the seed alone: the same seed gives the same prompt, whatever was drawn before.
            (prompt,) = self.source.draw(np.array([draw_seed(seed, number)], dtype=np.uint64))
        raise EmptyPromptsError(f"none of {MOST_DRAWS} prompts fits into {self.space.room} tokens")

"""Prompts as token ids, checked against the room that an environment has for them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textenv.errors import (
    EmptyPromptsError,
    PromptError,
    PromptTooLongError,
    ResetOptionsError,
    UnframedError,
)
from textenv.frames import Frame, Message
from textenv.prompts import ListPrompts, Prompt, PromptSource
from textenv.records import listed
from textenv.tokenizers import Tokenizer, encode_answer, encode_prompt

_WAY_OUT = (
    "shorten it, make the environment with more room, or let textenv.long_prompts (a command's "
    "--long-prompts) cut or drop it"
)


class PromptEncoder:
    """Turns prompts into ids, and refuses prompts that cannot start an episode.

    The prompts of a list are encoded once, beforehand.

    Args:
        tokenizer: Encodes the prompts.
        source: Where prompts will come from.
        room: Tokens that a prompt may have; None takes the length of the longest prompt of a list.
        frame: How prompts are wrapped; None for prompts that are read as they are.

    Attributes:
        room: Tokens that a prompt may have.

    Raises:
        PromptTooLongError: Prompts of the list are too long; the first ten are listed.
        PromptError: A prompt of the list cannot be used, or `room` is missing or below 1.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source: PromptSource,
        room: int | None,
        frame: Frame | None = None,
    ):
        if room is not None and room < 1:
            raise PromptError(f"max_prompt_tokens is {room}; a prompt has at least one token")
        self.tokenizer, self._frame = tokenizer, frame
        self._known: dict[str, NDArray[np.int64]] = {}
        if not isinstance(source, ListPrompts):
            if room is None:
                raise PromptError(
                    "max_prompt_tokens is needed where prompts are drawn from a function: the "
                    "environment cannot know the longest one"
                )
            self.room = room
            return
        # Without a limit while the longest prompt is not known yet.
        self.room = np.iinfo(np.int64).max if room is None else room
        longest = 1
        long = []
        for number, prompt in enumerate(source.prompts):
            try:
                ids = self.encode(prompt, prompt.origin or f"prompts[{number}]")
            except PromptTooLongError as error:
                long.append(error.which)
                continue
            longest = max(longest, len(ids))
            # Ids need no tokenizer, and messages are known by more than their text.
            if prompt.tokens is None and prompt.messages is None:
                self._known[prompt.text] = ids
        if long:
            raise PromptTooLongError(listed(long), _WAY_OUT)
        self.room = longest if room is None else room

    def encode(self, prompt: Prompt, name: str) -> NDArray[np.int64]:
        """Ids of a prompt, shape (prompt_length,), int64; errors call it `name`.

        Raises:
            EmptyPromptsError: The prompt has no token.
            PromptTooLongError: The prompt has more tokens than there is room for.
            PromptError: An id that was given directly is outside the vocabulary.
            FrameError: The frame refuses messages.
            UnframedError: There are messages and there is no frame.
        """
        plain = prompt.tokens is None and prompt.messages is None
        if plain and prompt.text in self._known:
            return self._known[prompt.text]
        ids = np.asarray(prompt_ids(prompt, self.tokenizer, self._frame, name), dtype=np.int64)
        if len(ids) == 0:
            raise EmptyPromptsError(
                f"{name}: the prompt {prompt.text!r} has no token, and a policy needs one to start "
                "from: use a newline, or {'tokens': [the stop token]}"
            )
        if len(ids) > self.room:
            hint = _WAY_OUT
            if prompt.tokens is not None:
                hint += "; 'prompt_length' says where the answer begins"
            raise PromptTooLongError(
                f"{name}: the prompt {prompt.text[:60]!r} has {len(ids)} tokens, max_prompt_tokens "
                f"is {self.room}",
                hint,
            )
        if ids.max() >= self.tokenizer.vocab_size or ids.min() < 0:
            outside = ids[(ids < 0) | (ids >= self.tokenizer.vocab_size)][0]
            raise PromptError(
                f"{name}: the prompt has the token {outside}; tokens are 0 to "
                f"{self.tokenizer.vocab_size - 1}"
            )
        return ids


def prompt_ids(
    prompt: Prompt, tokenizer: Tokenizer, frame: Frame | None, name: str
) -> Sequence[int] | NDArray[np.int64]:
    """Ids of a prompt, wrapped if there is a frame; errors call it `name`.

    Raises:
        FrameError: The frame refuses the messages.
        UnframedError: There are messages and there is no frame.
    """
    if prompt.tokens is not None:
        return prompt.tokens
    if frame is not None:
        return frame.opening(prompt.messages or [{"role": "user", "content": prompt.text}])
    if prompt.messages is not None:
        raise UnframedError(
            f"{name}: the prompt is a list of messages, and there is no frame",
            "give frame='chat' for the chat template of the model, or frame=ChatTemplate()",
        )
    return encode_prompt(tokenizer, prompt.text)


def asked_ids(
    asked: str | Sequence[Message], tokenizer: Tokenizer, frame: Frame | None, name: str
) -> list[int]:
    """Ids of a text or of messages up to where the answer begins, as an environment has them.

    Raises:
        FrameError: The frame refuses the messages.
        UnframedError: There are messages and there is no frame.
    """
    prompt = Prompt(asked) if isinstance(asked, str) else Prompt("", messages=list(asked))
    return list(prompt_ids(prompt, tokenizer, frame, name))


def answered_ids(answer: str, tokenizer: Tokenizer, frame: Frame | None) -> list[int]:
    """Ids of an answer behind its prompt, with the token that ends it, if there is one."""
    if frame is not None:
        return frame.answer(answer)
    stop = tokenizer.stop_token
    return [*encode_answer(tokenizer, answer), *(() if stop is None else (stop,))]


def check_answer(
    answer: NDArray[np.int64],
    name: str,
    budget: int,
    is_stop: NDArray[np.bool_],
    border: int = 0,
) -> None:
    """Refuse the beginning of an answer if it leaves nothing to generate; errors call it `name`.

    Args:
        answer: Ids, shape (answer_length,), int64.
        name: The row it is for.
        budget: Tokens that an answer may have.
        is_stop: Tokens that end an answer, shape (V,), bool.
        border: Where the present turn of a conversation begins; earlier ones have ended.

    Raises:
        ResetOptionsError: The answer is as long as the budget, has a stop token, or has an id
            outside the vocabulary.
    """
    if (outside := answer[answer >= len(is_stop)]).size:
        raise ResetOptionsError(
            f"{name}: the answer begun already has the token {outside[0]}; tokens are 0 to "
            f"{len(is_stop) - 1}"
        )
    turn = answer[border:]
    if (stops := turn[is_stop[turn]]).size:
        raise ResetOptionsError(
            f"{name}: the answer begun already has the stop token {stops[0]}: nothing is left to "
            "generate"
        )
    if len(answer) >= budget:
        raise ResetOptionsError(
            f"{name}: the answer begun already has {len(answer)} tokens, max_new_tokens is "
            f"{budget}: nothing is left to generate"
        )

"""Questions put to a policy through a chat template, and what it says.

A question is the messages of a conversation, perhaps with worked examples before them and with
columns that say what kind it is. The answers know nothing of right and wrong; see `conduct`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from policies import generate_tokens
from policies.generation import Answerer
from textenv.errors import FrameError, TokenizerError
from textenv.frames import Frame, FrameArgument, load_frame
from textenv.masks import ends_of_answers
from textenv.stop_strings import StopStrings
from textenv.tokenizers import decode_answer

Messages: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Query:
    """One question.

    Attributes:
        messages: The conversation up to the question; the last message is the user's.
        columns: What is known about it, such as `kind` and `check`.
        examples: Whole conversations that may stand before it, each ending in an answer.
    """

    messages: Messages
    columns: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Messages] = ()

    def without_history(self) -> "Query":
        """The last message alone."""
        return replace(self, messages=self.messages[-1:])


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        text: Its text, without the stop token and up to a stop string.
        tokens: Its length, a stop token included.
        shots: Examples that stood before the question.
    """

    text: str
    tokens: int
    shots: int = 0


def ask(
    policy: Answerer,
    frame: FrameArgument,
    queries: Sequence[Query],
    *,
    shots: int = 0,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
    stop_strings: Sequence[str] = (),
    batch_size: int = 64,
    seed: int = 0,
) -> list[Said]:
    """What a policy says to each question.

    Args:
        policy: Any policy with a tokenizer.
        frame: The chat template: a `ChatTemplate`, or "chat" for the tokenizer's own.
        queries: The questions.
        shots: Examples to show before each, as earlier turns of the conversation; fewer where they
            do not fit the context.
        max_new_tokens: Token budget of an answer.
        temperature: Logits are divided by it; 0 takes the likeliest token.
        stop_strings: Texts that end an answer, such as a line's end for a model that has not
            learned to stop.
        batch_size: Questions that are answered at a time.
        seed: Seed of the sampling.

    Raises:
        FrameError: There is no frame, or it cannot hold the messages.
        TokenizerError: The policy has no tokenizer.
        PromptTooLongError: A question does not fit the policy's context by itself.
    """
    if policy.tokenizer is None:
        raise TokenizerError("the policy has no tokenizer: set policy.tokenizer")
    made = load_frame(frame, policy.tokenizer)
    if made is None:
        raise FrameError("questions are messages: give a frame, such as ChatTemplate()")
    room = policy.context - max_new_tokens + 1
    opened = [_opening(made, query, shots, room) for query in queries]
    prompts = [ids for ids, _ in opened]
    ends = ends_of_answers(policy.tokenizer, None, made.end_of_turn, stop_strings)
    answers = generate_tokens(
        policy,
        prompts,
        max_new_tokens,
        temperature=temperature,
        stop_tokens=ends,
        forbidden_tokens=made.role_tokens,
        stop_strings=stop_strings,
        batch_size=batch_size,
        generator=np.random.default_rng(seed),
    )
    strings = StopStrings(stop_strings, policy.tokenizer) if stop_strings else None
    said = []
    for (prompt, shown), answer in zip(opened, answers, strict=True):
        until = strings.completed(prompt, answer) if strings else None
        stopped = answer[-1] in ends
        text = decode_answer(policy.tokenizer, prompt, answer[:-1] if stopped else answer)
        said.append(Said(text if until is None else until, len(answer), shown))
    return said


def _opening(frame: Frame, query: Query, shots: int, room: int) -> tuple[list[int], int]:
    """Ids of the question behind as many examples as fit, and how many these are."""
    for count in range(min(shots, len(query.examples)), 0, -1):
        shown = [message for example in query.examples[:count] for message in example]
        ids = frame.opening([*shown, *query.messages])
        if len(ids) <= room:
            return ids, count
    return frame.opening(query.messages), 0

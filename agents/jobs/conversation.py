"""Talking to a policy: the conversation so far as a prompt, and an answer shown as it is written.

A conversation that no longer fits the policy's context loses its oldest questions and answers; a
system message stays. `Chat` puts messages through a chat template; `Continuation` is for a policy
that was never taught to chat, and has no history.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from agents.feedback.from_models.language_model import turn_marks
from agents.runs.streaming import TextStream
from policies import Policy, generate_tokens, tokenizer_of
from policies.sampling import Sampler, sample
from textenv import Tokenizer
from textenv.episode import STOP
from textenv.errors import PromptTooLongError
from textenv.frames import ChatTemplate, Frame, ModelTemplate
from textenv.grammars import Grammar, OfRecord
from textenv.tokenizers import encode_prompt, stop_tokens_of
from textenv.tools import Tools, ToolWorld
from textenv.worlds import Reply, Turn

MOST_ANSWERS = 16
"""Answers to one question, calls of tools among them: a policy may call for ever."""

Show = Callable[[str], object]
"""Takes the next piece of an answer."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled; as in `policies.generate_tokens`.

    Attributes:
        max_new_tokens: Longest answer.
        temperature: 0 takes the likeliest token.
        top_k: Keep only this many tokens.
        top_p: Keep only the likeliest tokens that together reach this probability.
        min_new_tokens: Shortest answer.
        forbidden_tokens: Ids that are never chosen.
        allowed_tokens: Ids beside which none is chosen, except stop tokens; None allows all.
        stop_strings: Texts that end an answer.
        stop_tokens: Ids that end an answer; the tokenizer's own if None.
        grammar: Which texts an answer may be; any if None.
    """

    max_new_tokens: int = 64
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_new_tokens: int = 0
    forbidden_tokens: Sequence[int] = ()
    allowed_tokens: Sequence[int] | None = None
    stop_strings: Sequence[str] = ()
    stop_tokens: Sequence[int] | None = None
    grammar: Grammar | OfRecord | None = None


@dataclass
class Voice:
    """A policy that writes one answer at a time.

    Attributes:
        policy: It must have a tokenizer.
        sampling: How its tokens are chosen.
        generator: Of the random numbers; the policy's own if None.
        check: Gives a text back as it is, or a refusal; see `agents.evaluation.refuse_toxic`. What
            is on the screen cannot be taken back, so with a check answers are shown whole.
        sampler: How a random number becomes a token; see `Policy.act`.

    Raises:
        TokenizerError: The policy has no tokenizer.
        PromptTooLongError: The answers leave no room for a prompt in the policy's context.
    """

    policy: Policy
    sampling: Sampling = field(default_factory=Sampling)
    generator: np.random.Generator | None = None
    check: Callable[[str], str] | None = None
    sampler: Sampler = sample

    def __post_init__(self) -> None:
        self.tokenizer: Tokenizer = tokenizer_of(self.policy)
        if self.room < 1:
            raise PromptTooLongError(
                f"answers of {self.sampling.max_new_tokens} tokens leave no room for a prompt in "
                f"the policy's context of {self.policy.context}"
            )

    @property
    def room(self) -> int:
        """Tokens that a prompt may have; the last token of an answer is not read any more."""
        return self.policy.context - self.sampling.max_new_tokens + 1

    def reply(self, text: str, prompt: Sequence[int], show: Show) -> str:
        """The answer to `text`, which makes the ids `prompt`; shown as it comes, and given back.

        Raises:
            EmptyPromptsError: There are no ids.
            PromptTooLongError: They do not fit the context together with an answer.
        """
        if self.check is None:
            return self._stream(prompt, show)
        said = self.check(text)
        if said == text:
            said = self.check(self._stream(prompt, lambda piece: None))
        show(said)
        return said

    def _stream(self, prompt: Sequence[int], show: Show) -> str:
        shortest = self.sampling.min_new_tokens
        stream = TextStream(self.tokenizer, prompt, self.sampling.stop_strings, shortest)
        given = self.sampling.stop_tokens
        stops = stop_tokens_of(self.tokenizer) if given is None else given
        pieces: list[str] = []

        def take(piece: str) -> None:
            if piece:
                pieces.append(piece)
                show(piece)

        def on_token(number: int, token: int) -> None:
            if token not in stops:
                take(stream.push(token))

        generate_tokens(
            self.policy,
            [prompt],
            generator=self.generator,
            sampler=self.sampler,
            on_token=on_token,
            **vars(self.sampling),
        )
        take(stream.finish())
        return "".join(pieces)


class Talker(Protocol):
    """What answers one text after the other."""

    def answer(self, text: str, show: Show) -> str:
        """The answer to `text`; its pieces are given to `show` as they come."""
        ...

    def reset(self) -> None:
        """Forget what was said."""
        ...


@dataclass
class Continuation:
    """Continues each text by itself."""

    voice: Voice

    def answer(self, text: str, show: Show) -> str:
        """What comes after `text`; raises as `Voice.reply`."""
        return self.voice.reply(text, encode_prompt(self.voice.tokenizer, text), show)

    def reset(self) -> None:
        """Nothing is remembered."""


@dataclass
class Chat:
    """Answers in a conversation.

    Attributes:
        voice: What answers.
        template: Makes one prompt of the messages; what ends its turns ends the voice's answers.
        system: A message in front of all, which is never dropped.
        messages: What was said so far and still fits, without the system message.
        tools: What the policy may call: it is told the results, and answers again.

    Raises:
        FrameError: The template has no form for a conversation with tools.
    """

    voice: Voice
    template: ChatTemplate | ModelTemplate = field(default_factory=ChatTemplate)
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    tools: Tools | None = None

    def __post_init__(self) -> None:
        sampling = self.voice.sampling
        ends, roles = turn_marks(self.template, self.voice.tokenizer)
        forbidden = (*sampling.forbidden_tokens, *roles)
        if sampling.stop_tokens is None:
            sampling = replace(sampling, stop_tokens=ends)
        sampling = replace(sampling, forbidden_tokens=forbidden)
        self.voice = replace(self.voice, sampling=sampling)
        self._frame: Frame | None = None
        if self.tools is not None:
            self._frame = self.template.frame(self.voice.tokenizer, self.tools.tools)

    def answer(self, text: str, show: Show) -> str:
        """The last answer to `text`; all is remembered, unless an answer was interrupted.

        Raises:
            PromptTooLongError: `text` alone does not fit the context together with an answer.
            PromptError: The template refuses the messages.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        called = None if self.tools is None else self.tools()
        for number in range(1, MOST_ANSWERS + 1):
            messages, prompt = self._fitting(messages)
            said = self.voice.reply(text, prompt, show)
            # The template has the space between a role and an answer; the answer brings its own.
            messages = [*messages, {"role": "assistant", "content": said.strip()}]
            results = [] if called is None else _results(called, said, number)
            if not results or number == MOST_ANSWERS:
                break
            for result in results:
                show(f"\n[tool] {result}\n")
            if isinstance(self.template, ChatTemplate):  # it has a form for one message
                results = ["\n".join(results)]
            messages += [{"role": "tool", "content": result} for result in results]
        self.messages = messages
        return said

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = []

    def _tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if self._frame is not None:
            return self._frame.opening(messages)
        return self.template.prompt_tokens(messages, self.voice.tokenizer)

    def _fitting(self, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        """As many of the latest turns as the context has room for, and their ids."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        # A question goes together with all that was said to it.
        for begin in (n for n, message in enumerate(messages) if message["role"] == "user"):
            kept = messages[begin:]
            ids = self._tokens([*system, *kept])
            if len(ids) <= self.voice.room:
                return kept, ids
        raise PromptTooLongError(
            f"the message has {len(ids)} tokens with its template; answers of "
            f"{self.voice.sampling.max_new_tokens} tokens leave room for "
            f"{self.voice.room} in the policy's context of {self.voice.policy.context}: "
            "say less, or ask for shorter answers"
        )


def _results(called: ToolWorld, said: str, number: int) -> list[str]:
    """What the calls in an answer returned; empty if there is none."""
    turn = Turn(said, np.zeros(0, dtype=np.int64), number, STOP)
    reply = called.reply(turn, np.random.default_rng())
    if inspect.isawaitable(reply):
        reply = asyncio.run(_waited(reply))
    return [] if reply.terminated else list(reply.texts)


async def _waited(reply: Awaitable[Reply]) -> Reply:
    return await reply

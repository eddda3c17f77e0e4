"""What is asked of a language model that gives feedback, and a policy as such a model."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from agents.feedback.rankings import Asked, as_text
from policies import Policy, generate, tokenizer_of
from textenv import Tokenizer
from textenv.errors import (
    FrameError,
    PromptError,
    PromptTooLongError,
    RewrittenHistoryWarning,
)
from textenv.frames import ChatTemplate, ModelTemplate
from textenv.records import short
from textenv.tokenizers import encode_answer, encode_prompt, stop_tokens_of

LEAD = "\nAnswer:"
"""Stands behind a question to a model that knows no roles."""

DIALOGUE_LEAD = "\n\nAssistant:"
"""Stands behind the transcript of a dialogue instead."""

QUESTIONS_AT_ONCE = 16
"""Questions that are read in one pass."""


class LanguageModel(Protocol):
    """Writes texts, and chooses between options: `LocalModel`, or `textenv.chat_server.ChatServer`.

    Both methods take many questions, so that they can be read in batches or asked at the same time.
    """

    def write(self, requests: Sequence[Asked]) -> list[str]:
        """A text to each request: a text, or the messages of a dialogue, which it answers."""
        ...

    def choose(
        self, questions: Sequence[str], options: Sequence[str] = ("A", "B")
    ) -> NDArray[np.float64]:
        """How likely each option is as the answer to each question.

        Args:
            questions: Each ends in asking for one of the options.
            options: What may be chosen.

        Returns:
            Shape (questions, options); every row sums to 1.
        """
        ...


def turn_marks(
    template: ChatTemplate | ModelTemplate | None, tokenizer: Tokenizer
) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """The ids that end an answer, and those that may not be chosen in one.

    A template may end its turns in another id than the tokenizer names.

    Returns:
        None and nothing where the template adds nothing to what the tokenizer says.
    """
    if template is None:
        return None, ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewrittenHistoryWarning)  # prompts are made anew each time
        try:
            frame = template.frame(tokenizer)
        except FrameError:  # it can wrap a prompt, and more is not asked of it here
            return None, ()
    own = stop_tokens_of(tokenizer)
    if frame.end_of_turn is None or frame.end_of_turn in own:
        return None, tuple(frame.role_tokens)
    return (frame.end_of_turn, *own), tuple(frame.role_tokens)


@dataclass
class LocalModel:
    """A policy as a language model that gives feedback.

    It chooses by the likelihood of the options as its answer; nothing is sampled (Bai et al.,
    "Constitutional AI: Harmlessness from AI Feedback", 2022, arXiv:2212.08073, section 4.1).

    Attributes:
        policy: It must have a tokenizer.
        template: Wraps each question; None for a model that was taught no roles, which reads the
            question and `LEAD`.
        max_new_tokens: Longest text that it writes.
        temperature: Logits are divided by this in writing; 0 takes the likeliest token.
        generator: Random numbers of writing; the policy's own if None.

    Raises:
        TokenizerError: The policy has no tokenizer.
    """

    policy: Policy
    template: ChatTemplate | ModelTemplate | None = None
    max_new_tokens: int = 128
    temperature: float = 0.8
    generator: np.random.Generator | None = None

    def __post_init__(self) -> None:
        self.tokenizer = tokenizer_of(self.policy)
        self._ends, self._roles = turn_marks(self.template, self.tokenizer)

    def write(self, requests: Sequence[Asked]) -> list[str]:
        """A text to each request, without white space around it.

        Raises:
            PromptTooLongError: A request and `max_new_tokens` do not fit the policy's context.
            PromptError: The template refuses the messages of a dialogue.
        """
        texts = generate(
            self.policy,
            self._prompts(requests, self.max_new_tokens),
            self.max_new_tokens,
            temperature=self.temperature,
            stop_tokens=self._ends,
            forbidden_tokens=self._roles,
            generator=self.generator,
        )
        return [text.strip() for text in texts]

    @torch.inference_mode()
    def choose(
        self, questions: Sequence[str], options: Sequence[str] = ("A", "B")
    ) -> NDArray[np.float64]:
        """The options' likelihoods as answers, scaled to sum to 1; see `LanguageModel.choose`.

        Raises:
            PromptTooLongError: A question and an option do not fit the policy's context.
        """
        endings = [self._answer(option) for option in options]
        prompts = self._prompts(questions, max(map(len, endings)))
        logprobs = np.zeros((len(prompts), len(endings)))
        for begin in range(0, len(prompts), QUESTIONS_AT_ONCE):
            some = prompts[begin : begin + QUESTIONS_AT_ONCE]
            logprobs[begin : begin + len(some)] = self._logprobs(some, endings)
        # Only the options count, however little the model expects them.
        likelihoods = np.exp(logprobs - logprobs.max(1, keepdims=True, initial=-np.inf))
        shares: NDArray[np.float64] = likelihoods / likelihoods.sum(1, keepdims=True)
        return shares

    def _logprobs(
        self, prompts: Sequence[list[int]], endings: Sequence[list[int]]
    ) -> NDArray[np.float64]:
        """Log-probability of every ending behind every prompt, shape (prompts, endings)."""
        rows = [torch.tensor(prompt + ending) for prompt in prompts for ending in endings]
        pad = self.policy.pad_token
        tokens = pad_sequence(rows, batch_first=True, padding_value=pad).to(self.policy.device)
        starts = torch.tensor([len(prompt) for prompt in prompts for _ in endings])
        places = torch.arange(tokens.shape[1])
        lengths = torch.tensor([len(row) for row in rows])
        mask = (places >= starts[:, None]) & (places < lengths[:, None])
        summed = self.policy.outputs(tokens, mask.to(tokens.device)).logprobs.double().sum(1)
        return summed.view(len(prompts), len(endings)).cpu().numpy()

    def _prompts(self, questions: Sequence[Asked], answer: int) -> list[list[int]]:
        """Ids of the questions; `answer` is how many tokens must fit behind them."""
        prompts = [self._prompt(question) for question in questions]
        room = self.policy.context - answer + 1  # the last token of an answer is not read
        for question, ids in zip(questions, prompts, strict=True):
            if len(ids) > room:
                raise PromptTooLongError(
                    f"the question {short(question)} has {len(ids)} tokens and the model reads "
                    f"{max(room, 0)} before an answer of {answer}: take a model with a longer "
                    "context, or shorter answers and principles"
                )
        return prompts

    def _prompt(self, question: Asked) -> list[int]:
        if self.template is None:
            lead = LEAD if isinstance(question, str) else DIALOGUE_LEAD
            return encode_prompt(self.tokenizer, as_text(question) + lead)
        said = [{"role": "user", "content": question}] if isinstance(question, str) else question
        try:
            return self.template.prompt_tokens(list(said), self.tokenizer)
        except ValueError as error:
            raise PromptError(f"{short(as_text(question))}: {error}") from error

    def _answer(self, option: str) -> list[int]:
        """Ids of an option in the form in which the model writes answers."""
        form = " {content}" if self.template is None else "{content}"
        if isinstance(self.template, ChatTemplate):
            form = self.template.answer
        return encode_answer(self.tokenizer, form.replace("{content}", option))

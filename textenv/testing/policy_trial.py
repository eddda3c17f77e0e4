"""A policy on trial: the texts it is shown, and what it says of them as numpy arrays.

textenv knows no torch. What comes back is turned into arrays, whatever library it is from, and ids
are handed over as tensors of the kind that the policy's own parameters are.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from textenv.testing.making import require
from textenv.tokenizers import unused_tokens_of

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Text: TypeAlias = list[int]

ROWS, STEPS = 4, 24
"""Rows that are read at a time, and steps of a rollout."""


class Outputs(NamedTuple):
    """What a policy says of every choice in whole sequences, each of shape (S, L)."""

    logprobs: Floats
    values: Floats
    entropies: Floats


@dataclass
class PolicyTrial:
    """A policy and texts on which it is tried.

    Attributes:
        given: The policy, or what makes one.
        prompts: What texts begin with; random ids if None.
        tolerance: Largest difference, in nats or units of value, of what should be the same.
    """

    given: Any
    prompts: Sequence[Sequence[int]] | None
    tolerance: float

    def made(self) -> Any:
        """A policy of the same shape as the one that is tried, or a copy of it."""
        if isinstance(self.given, type) or not hasattr(self.given, "act"):
            return self.given()
        return copy.deepcopy(self.given)

    @cached_property
    def policy(self) -> Any:
        """What is tried: a copy whose values are not all zero, as they are before training."""
        policy = self.made()
        weight = policy.value_head.weight
        noise = np.random.default_rng(0).normal(size=tuple(weight.shape))
        weight.detach().copy_(weight.detach().new_tensor(noise / weight.shape[1] ** 0.5))
        return policy

    @property
    def vocab_size(self) -> int:
        """V, which is also the padding."""
        return int(self.policy.vocab_size)

    @cached_property
    def beginnings(self) -> list[Text]:
        """Prompts of different lengths."""
        if self.prompts is not None:
            return [list(prompt) for prompt in self.prompts]
        rng = np.random.default_rng(0)
        longest = max(1, min(6, self.policy.context // 3))
        lengths = [1 + number % longest for number in range(2 * ROWS)]
        return [self._ids(rng, length) for length in lengths]

    @cached_property
    def width(self) -> int:
        """Longest text."""
        longest = max(len(prompt) for prompt in self.beginnings)
        require(
            longest < self.policy.context,
            f"a prompt has {longest} tokens and the policy's context is {self.policy.context}: "
            "leave room for an answer",
        )
        return min(int(self.policy.context), longest + STEPS // 2)

    @cached_property
    def texts(self) -> tuple[Ints, NDArray[np.bool_]]:
        """Prompts with random answers of different lengths, and where the answers are, (S, L)."""
        rng = np.random.default_rng(1)
        tokens = np.full((len(self.beginnings), self.width), self.vocab_size)
        mask = np.zeros(tokens.shape, dtype=bool)
        for row, prompt in enumerate(self.beginnings):
            end = int(rng.integers(len(prompt), self.width)) + 1
            tokens[row, : len(prompt)] = prompt
            tokens[row, len(prompt) : end] = self._ids(rng, end - len(prompt))
            mask[row, len(prompt) : end] = True
        return tokens, mask

    def padded(self, texts: Sequence[Text]) -> Ints:
        """Texts as observations (n, width)."""
        observations = np.full((len(texts), self.width), self.vocab_size)
        for row, text in zip(observations, texts, strict=True):
            row[: len(text)] = text
        return observations

    def game(self) -> Iterator[Ints]:
        """Observations (ROWS, width) of rows that grow, jump, shrink, begin anew and swap texts."""
        rng = np.random.default_rng(2)
        prompts = self.beginnings

        def begin() -> tuple[Text, int]:
            prompt = prompts[rng.integers(len(prompts))]
            return list(prompt), len(prompt)

        rows = [begin() for _ in range(ROWS)]
        for _ in range(STEPS):
            yield self.padded([text for text, _ in rows])
            for row, (text, start) in enumerate(rows):
                fate = rng.random()
                if fate < 0.1 or len(text) == self.width:
                    rows[row] = begin()
                elif fate < 0.2:
                    other, its_start = rows[rng.integers(ROWS)]
                    rows[row] = other[: rng.integers(its_start, len(other) + 1)], its_start
                elif fate < 0.3:
                    rows[row] = text[: rng.integers(start, len(text) + 1)], start
                else:
                    more = 1 if fate < 0.9 else int(rng.integers(2, 6))
                    rows[row] = [*text, *self._ids(rng, more)][: self.width], start

    def _ids(self, rng: np.random.Generator, count: int) -> Text:
        """Random ids of tokens; a policy gives those that stand for none no probability."""
        unused = unused_tokens_of(getattr(self.policy, "tokenizer", None))
        tokens = np.setdiff1d(np.arange(self.vocab_size), unused)
        return tokens[rng.integers(len(tokens), size=count)].tolist()


def array(tensor: Any) -> Floats:
    """A tensor of any library as an array of doubles."""
    return np.asarray(tensor.detach().cpu().double())  # not every device has doubles


def tensors(policy: Any, *arrays: NDArray[Any]) -> tuple[Any, ...]:
    """Ids and masks as tensors of the policy's library, on its device."""
    # A tensor makes others of its own number type.
    like = policy.value_head.weight.detach()[:0]
    ids, flags = like.long(), like.bool()
    return tuple((flags if x.dtype == bool else ids).new_tensor(x) for x in arrays)


def outputs(
    policy: Any,
    tokens: Ints,
    mask: NDArray[np.bool_],
    temperature: float = 1.0,
    action_masks: NDArray[np.bool_] | None = None,
) -> Outputs:
    """What `policy.outputs` says of whole sequences."""
    allowed = None if action_masks is None else tensors(policy, action_masks)[0]
    found = policy.outputs(
        *tensors(policy, tokens, mask), temperature=temperature, action_masks=allowed
    )
    return Outputs(*(array(getattr(found, name)) for name in Outputs._fields))


def reading(policy: Any, observations: Ints, cache: Any = None) -> tuple[Floats, Floats]:
    """Log-probabilities of all tokens after each observation, (n, V), and values, (n,)."""
    hidden = policy.last_hidden(observations, cache).clone()
    logits = getattr(policy, "choices", policy.logits)(hidden)
    return log_softmax(array(logits)), array(policy.value_head(hidden))[:, 0]


def log_softmax(logits: Floats) -> Floats:
    """Logits (n, V) as logarithms of probabilities; minus infinity stays."""
    shifted = logits - logits.max(1, keepdims=True)
    logprobs: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logprobs


def move(policy: Any) -> None:
    """Change all weights that are trained, in place, as an optimiser does."""
    rng = np.random.default_rng(4)
    moved = False
    for parameter in policy.parameters():
        if parameter.requires_grad:
            noise = rng.normal(scale=0.05, size=tuple(parameter.shape))
            parameter.detach().add_(parameter.detach().new_tensor(noise))
            moved = True
    if not moved:
        raise SkipTest("no weight of this policy is trained")

"""Rules for learners: what they say of their choices is true.

The pitfalls of reinforcement learning on text are mostly disagreements between the policy that
sampled and the one that is learned from: a temperature, a cut to the likeliest tokens or an action
mask at one of them only, dropout left on, positions that shift with the batch. They all show in the
numbers, whoever computed them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from textenv.testing.making import AnyEnv, Maker, require, single_spaces
from textenv.testing.playing import play

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.floating[Any]]
TOLERANCE = 1e-4
"""Largest difference between log-probabilities that should be the same, in nats."""

SAMPLES = 2_000
"""How often one text is continued to compare what is sampled with its log-probabilities."""


class Agent(Protocol):
    """What is asked of a learner: two functions on numpy arrays.

    `action_masks` are (n, V) bool, or None; an agent without masks may leave the argument out, and
    the rules about masks are skipped.
    """

    def sample(self, observations: Ints, action_masks: Any = None) -> tuple[Ints, Floats]:
        """Tokens for n texts (n, L) as in training, and the log-probabilities it stores, (n,)."""
        ...

    def logprobs(self, observations: Ints, actions: Ints, action_masks: Any = None) -> Floats:
        """Log-probabilities (n,) of choices (n,) as the update computes them, weights unchanged."""
        ...


@dataclass
class Trial:
    """An agent and texts of many lengths from random play, on which it is to be tried."""

    agent: Agent
    make: Maker

    @cached_property
    def observations(self) -> Ints:
        """Texts before a choice, short and long ones mixed, shape (n, L)."""
        texts = [transition.before for transition in play(self.make)]
        order = np.random.default_rng(0).permutation(len(texts))[:64]
        return np.stack([texts[number] for number in order])

    @cached_property
    def vocab_size(self) -> int:
        """V."""
        return int(single_spaces(self.make())[0].n)  # type: ignore[attr-defined]

    def masks(self) -> NDArray[np.bool_]:
        """For each text half of the vocabulary, shape (n, V)."""
        masks = np.zeros((len(self.observations), self.vocab_size), dtype=bool)
        masks[::2, ::2] = masks[1::2, 1::2] = True
        try:
            self.agent.sample(self.observations, action_masks=masks)
        except TypeError as error:
            raise SkipTest(f"the agent takes no action masks: {error}") from error
        return masks


def chosen_tokens_are_actions(trial: Trial) -> None:
    """Chosen tokens are ids of the vocabulary, never the padding."""
    actions, logprobs = trial.agent.sample(trial.observations)
    shape = (len(trial.observations),)
    require(
        np.shape(actions) == np.shape(logprobs) == shape,
        f"actions and log-probabilities have shapes {np.shape(actions)} and {np.shape(logprobs)}; "
        f"one of each is due for each of {shape[0]} texts",
    )
    wrong = (np.asarray(actions) < 0) | (np.asarray(actions) >= trial.vocab_size)
    require(
        not wrong.any(),
        f"token {np.asarray(actions)[wrong][:1]} was chosen; tokens are 0 to "
        f"{trial.vocab_size - 1}, and {trial.vocab_size} is the padding",
    )


def logprobs_are_logprobs(trial: Trial) -> None:
    """Stored log-probabilities are finite and not above 0."""
    _, logprobs = trial.agent.sample(trial.observations)
    worst = float(np.max(logprobs))
    require(
        np.isfinite(logprobs).all() and worst <= TOLERANCE,
        f"a stored log-probability is {worst}, or none at all: {np.asarray(logprobs)[:4]}",
    )


def logprobs_repeat_sampling(trial: Trial) -> None:
    """With unchanged weights the ratio is 1 for texts of all lengths."""
    actions, stored = trial.agent.sample(trial.observations)
    computed = trial.agent.logprobs(trial.observations, actions)
    _require_same(
        trial,
        stored,
        computed,
        "the update begins with a ratio that is not 1. Look for a temperature, top-k or top-p at "
        "sampling only, for dropout, and for positions that count padding",
    )


def logprobs_twice_agree(trial: Trial) -> None:
    """Computed twice, log-probabilities agree: nothing random is left on."""
    actions, _ = trial.agent.sample(trial.observations)
    first, second = (trial.agent.logprobs(trial.observations, actions) for _ in range(2))
    _require_same(
        trial, first, second, "computed twice, they differ. Switch dropout off, in training too"
    )


def a_text_alone_reads_as_in_a_batch(trial: Trial) -> None:
    """Neither the batch's size nor its longest text shift a log-probability."""
    actions, _ = trial.agent.sample(trial.observations)
    together = trial.agent.logprobs(trial.observations, actions)
    pairs = zip(trial.observations, actions, strict=True)
    alone = [trial.agent.logprobs(text[None], np.array([action]))[0] for text, action in pairs]
    _require_same(
        trial,
        together,
        np.array(alone),
        "a text has other log-probabilities alone than in a batch. Positions and attention must "
        "not depend on the padding of other rows",
    )


def the_amount_of_padding_does_not_matter(trial: Trial) -> None:
    """A text has the same log-probabilities whatever the width it is padded to."""
    lengths = (trial.observations != trial.vocab_size).sum(1)
    short = trial.observations[lengths <= np.median(lengths)]
    longest = int((short != trial.vocab_size).sum(1).max())
    actions, _ = trial.agent.sample(short)
    widest = trial.agent.logprobs(short, actions)
    for more in (0, 3, 7):
        narrow = short[:, : min(longest + more, short.shape[1])]
        _require_same(
            trial,
            widest,
            trial.agent.logprobs(narrow, actions),
            "padding shifts log-probabilities. Positions and attention must not count it",
        )


def probabilities_sum_to_one(trial: Trial) -> None:
    """The probabilities of all tokens after a text sum to 1."""
    for text in _some(trial):
        total = float(np.exp(_all_logprobs(trial, text)).sum())
        require(
            abs(total - 1) < 1e-3,
            f"the probabilities of all {trial.vocab_size} tokens after a text sum to {total}. What "
            "is computed must be the distribution that is sampled, cuts such as top-k included",
        )


def samples_follow_the_probabilities(trial: Trial) -> None:
    """How often tokens are sampled agrees with their log-probabilities (chi-squared)."""
    for text in _some(trial):
        actions, _ = trial.agent.sample(np.repeat(text[None], SAMPLES, axis=0))
        expected = np.exp(_all_logprobs(trial, text)) * SAMPLES
        seen = np.bincount(np.asarray(actions), minlength=trial.vocab_size)
        # Rare tokens are counted as one, and the bound leaves no room for chance.
        common = expected >= 5
        seen_classes = np.append(seen[common], seen[~common].sum())
        classes = np.append(expected[common], expected[~common].sum())
        chi = float(((seen_classes - classes) ** 2 / np.maximum(classes, 1)).sum())
        freedom = max(int(common.sum()), 1)
        require(
            chi < freedom + 6 * np.sqrt(2 * freedom) + 36,
            f"of {SAMPLES} continuations of one text the frequencies do not follow the computed "
            f"probabilities (chi-squared {chi:.0f} at {freedom} degrees of freedom); the commonest "
            f"token came {seen.max()} times and should have come {expected[seen.argmax()]:.0f}",
        )


def masked_tokens_are_never_chosen(trial: Trial) -> None:
    """No token is chosen that its action mask rules out."""
    masks = trial.masks()
    for _ in range(8):
        actions, _ = trial.agent.sample(trial.observations, action_masks=masks)
        allowed = masks[np.arange(len(masks)), actions]
        require(
            allowed.all(),
            f"token {np.asarray(actions)[~allowed][:1]} was chosen although its mask forbids it",
        )


def masks_hold_in_the_update_too(trial: Trial) -> None:
    """Under masks, too, the update computes what was sampled."""
    masks = trial.masks()
    actions, stored = trial.agent.sample(trial.observations, action_masks=masks)
    computed = trial.agent.logprobs(trial.observations, actions, action_masks=masks)
    _require_same(
        trial, stored, computed, "the update applies no mask, or another one than the sampling"
    )


AGENT_RULES: tuple[Callable[[Trial], None], ...] = (
    chosen_tokens_are_actions,
    logprobs_are_logprobs,
    logprobs_twice_agree,
    a_text_alone_reads_as_in_a_batch,
    the_amount_of_padding_does_not_matter,
    probabilities_sum_to_one,
    logprobs_repeat_sampling,
    samples_follow_the_probabilities,
    masked_tokens_are_never_chosen,
    masks_hold_in_the_update_too,
)
"""What a learner keeps to; each docstring says it in a sentence."""


def trial(agent: Agent, env: AnyEnv | Callable[..., AnyEnv]) -> Trial:
    """The agent with an environment whose texts it is tried on."""
    return Trial(agent, Maker(env))


def _some(trial: Trial) -> Iterator[Ints]:
    """The shortest and the longest text."""
    lengths = (trial.observations != trial.vocab_size).sum(1)
    yield trial.observations[lengths.argmin()]
    yield trial.observations[lengths.argmax()]


def _all_logprobs(trial: Trial, text: Ints) -> Floats:
    texts = np.repeat(text[None], trial.vocab_size, axis=0)
    return np.asarray(trial.agent.logprobs(texts, np.arange(trial.vocab_size)))


def _require_same(trial: Trial, one: Any, other: Any, way_out: str) -> None:
    differences = np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float))
    worst = int(differences.argmax())
    length = int((trial.observations[worst] != trial.vocab_size).sum())
    require(
        differences[worst] < TOLERANCE,
        f"after a text of {length} tokens the same choice has log-probability "
        f"{np.asarray(one)[worst]:.5f} and {np.asarray(other)[worst]:.5f}: {way_out}",
    )

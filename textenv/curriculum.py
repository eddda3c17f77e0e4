"""Prompts that are drawn by how well they were answered so far.

A source of prompts is a function of seeds. One that is told what was scored is a function of seeds
and of what it was told: its state is part of the environment's, so a run is still resumed bit for
bit.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textenv.errors import CheckpointError, PromptError
from textenv.prompts import ListPrompts, Prompt, load_prompts
from textenv.records import short

Weight: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From the success at each prompt, shape (n,) within 0..1, to weights, shape (n,), not negative."""


@runtime_checkable
class AdaptivePrompts(Protocol):
    """A source of prompts that is told what was scored; `Curriculum` is one.

    An environment has a deep copy of it. Of each draw the environment keeps the prompt, so all
    answers of a group have the same one whatever is told meanwhile.
    """

    def draw(self, seeds: NDArray[np.uint64]) -> Sequence[Prompt]:
        """One prompt for each of `seeds`, shape (n,); depends on the seeds and the state alone."""
        ...

    def scored(
        self, prompts: Sequence[Prompt], scores: NDArray[np.float64], groups: NDArray[np.int64]
    ) -> None:
        """Take note of k episodes that ended in one step.

        Told are episodes that began with a drawn prompt and have a score. Left out are those that
        were started with options, were cut by a reset, have no score, or whose world failed.

        Args:
            prompts: What they began with, cut and opened as they were played; `number` and
                `columns` are those that the source gave.
            scores: What the environment paid for each, summed over the episode, shape (k,).
            groups: Equal for the episodes of one draw, shape (k,).
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next draws depend on, as copies: arrays and what JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        ...


def learnable(success: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variance of a success, p (1 - p): most for prompts that are solved half of the time.

    Where all answers or none are right, groups have no advantages. DAPO drops such groups once they
    are written (Yu et al., 2025); here they are drawn less often. It is the "learnability" of
    Foster and Foerster, "Learning to Reason at the Frontier of Learnability", 2025.
    """
    return success * (1 - success)


def hard(success: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of failures, 1 - p: hard prompts again, also those that are never solved."""
    return 1 - success


class Curriculum(ListPrompts):
    """A choice from finitely many prompts by the success that each has had so far.

    A prompt's success is the mean of its latest scores, as shares of `full_score`; it begins at one
    half. An environment has a copy of its own, `envs.prompts`.

    Args:
        prompts: A list of texts, records or `Prompt`s, or a path; see `load_prompts`.
        weight: From successes to the weights with which prompts are drawn: `learnable`, `hard`, or
            a function of your own.
        full_score: The score of an answer that is right; it counts as 1, scores of 0 and less as 0.
        memory: About how many of the latest answers count. The policy changes, so older ones say
            little of it.
        uniform: Share of the draws that take any prompt, so that none is forgotten.

    Attributes:
        success: Of each prompt, shape (n,), float64.
        counts: Scored answers to each prompt, shape (n,), int64.

    Raises:
        PromptError: The prompts are not a list, a number is out of its range, or the weights
            cannot be used.

    >>> source = Curriculum(["easy", "hard"], weight=hard, uniform=0.0)
    >>> source.scored([Prompt("easy", number=0)], np.array([1.0]), np.array([0]))
    >>> source.success.tolist(), source.probabilities.tolist()
    ([0.75, 0.5], [0.3333333333333333, 0.6666666666666666])
    """

    def __init__(
        self,
        prompts: Any,
        weight: Weight = learnable,
        *,
        full_score: float = 1.0,
        memory: int = 8,
        uniform: float = 0.1,
    ):
        source = load_prompts(prompts)
        if not isinstance(source, ListPrompts):
            raise PromptError(
                f"{short(prompts)} makes up its prompts, and a curriculum counts the answers to "
                "each of a list: pass a list, or write a source of your own with "
                "scored(prompts, scores, groups)"
            )
        if not full_score > 0 or memory < 2 or not 0 <= uniform <= 1:
            raise PromptError(
                f"full_score is {full_score}, memory {memory} and uniform {uniform}; full_score "
                "must be above 0, memory 2 or more, and uniform within 0..1"
            )
        super().__init__(source.prompts)
        self.weight, self.full_score = weight, full_score
        self.memory, self.uniform = memory, uniform
        self.success = np.full(len(self.prompts), 0.5)
        self.counts = np.zeros(len(self.prompts), dtype=np.int64)
        self._bounds = self._new_bounds()
        self._mark = _mark(self.prompts)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """With which probability each prompt is drawn next, shape (n,)."""
        weights = np.asarray(self.weight(self.success.copy()), dtype=np.float64)
        count = len(self.prompts)
        if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any():
            raise PromptError(
                f"the curriculum's weights are {short(weights)}; they must be {count} finite "
                "numbers, none of them negative"
            )
        total = weights.sum()
        chosen = weights / total if total > 0 else np.full(count, 1 / count)
        return (1 - self.uniform) * chosen + self.uniform / count

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        """One prompt for each of `seeds`, shape (n,), uint64; the seeds must be well mixed."""
        uniforms = (seeds >> np.uint64(11)) * 2.0**-53
        drawn = np.searchsorted(self._bounds, uniforms, side="right").tolist()
        return [self.prompts[number].numbered(number) for number in drawn]

    def scored(
        self, prompts: Sequence[Prompt], scores: NDArray[np.float64], groups: NDArray[np.int64]
    ) -> None:
        """See `AdaptivePrompts`."""
        for prompt, score in zip(prompts, scores.tolist(), strict=True):
            number = prompt.number
            if number is None or not number < len(self.prompts):
                raise PromptError(f"{short(prompt.text)} is no prompt of this curriculum")
            self.counts[number] += 1
            # The mean of all scores and of the one half that it began with, while they are few.
            step = 1 / min(int(self.counts[number]) + 1, self.memory)
            share = min(max(score / self.full_score, 0.0), 1.0)
            self.success[number] += step * (share - self.success[number])
        self._bounds = self._new_bounds()

    def with_prompts(self, prompts: Sequence[Prompt]) -> Self:
        """The same curriculum of other prompts, from its beginning."""
        return type(self)(
            prompts,
            self.weight,
            full_score=self.full_score,
            memory=self.memory,
            uniform=self.uniform,
        )

    def _new_bounds(self) -> NDArray[np.float64]:
        bounds = self.probabilities.cumsum()
        # The sum may round to just below 1, and the draws just below it belong to the last prompt
        # that can be drawn at all.
        bounds[np.searchsorted(bounds, bounds[-1]) :] = 1.0
        return bounds

    def state_dict(self) -> dict[str, Any]:
        """Successes and counts, and a mark of the prompts that they belong to."""
        return {
            "success": self.success.copy(),
            "counts": self.counts.copy(),
            "prompts": self._mark,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            CheckpointError: It was saved with other prompts, or in another order.
        """
        if state["prompts"] != self._mark:
            raise CheckpointError(
                f"the state of the curriculum belongs to other prompts than these "
                f"{len(self.prompts)}, or to another order of them: give those of the saved run"
            )
        self.success[...], self.counts[...] = state["success"], state["counts"]
        self._bounds = self._new_bounds()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = copy.copy(self)  # the prompts never change; what was told of them does
        other.success, other.counts = self.success.copy(), self.counts.copy()
        return other


def _mark(prompts: Sequence[Prompt]) -> str:
    """Equal for the same texts and ids in the same order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        content = prompt.content
        data = content.encode() if isinstance(content, str) else content
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()

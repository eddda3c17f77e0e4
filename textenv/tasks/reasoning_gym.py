"""The tasks of reasoning-gym: a hundred kinds of puzzles, made from seeds, with verifiers.

Stojanovski et al., "Reasoning Gym: Reasoning Environments for Reinforcement Learning with
Verifiable Rewards" (2025), arXiv:2505.24760.
"""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textenv.episode import Episode
from textenv.errors import PromptError
from textenv.imports import optional
from textenv.prompts import Prompt
from textenv.rewards import shared
from textenv.tasks.final_answers import Extractor, whole_text
from textenv.tasks.task import Task, Template, as_it_is

SEEDS = np.uint64(2**32)
"""Number of puzzles of a kind; some of the generators take no larger seeds."""

REMEMBERED = 4096
"""Puzzles kept in memory between prompt and score; others are made again from their seeds."""

Possible: TypeAlias = Callable[[str, dict[str, Any]], bool]
"""Whether a text may be the answer to a puzzle at all."""


def _anything(answer: str, puzzle: dict[str, Any]) -> bool:
    return True


def _says(answer: str, puzzle: dict[str, Any]) -> bool:
    return answer.strip(" .").casefold() == puzzle["answer"].casefold()


def _uses_its_numbers(answer: str, puzzle: dict[str, Any]) -> bool:
    return sorted(map(int, re.findall(r"\d+", answer))) == sorted(puzzle["metadata"]["numbers"])


POSSIBLE: dict[str, Possible] = {
    "game_of_life_halting": _says,
    "puzzle24": _uses_its_numbers,
}
"""What an answer must be at least, for the kinds whose verifiers give full marks to wrong ones.

reasoning-gym 0.1.25 compares `bool(answer)` with `bool("False")` in the one, and never asks which
four numbers make 24 in the other.
"""


class Puzzles:
    """Puzzles of one kind, made from seeds; see `reasoning_gym_task`.

    Args:
        dataset: A dataset of reasoning-gym.
        template: Makes a prompt from a question.
        extract: Finds the answer in the policy's text.
        possible: What an answer must be before the verifier is asked.
    """

    def __init__(self, dataset: Any, template: Template, extract: Extractor, possible: Possible):
        self.dataset = dataset
        self.possible = possible
        self.template = template
        self.extract = extract

    def draw(self, seeds: NDArray[np.uint64]) -> list[Prompt]:
        """One puzzle for each of `seeds`, shape (n,), uint64."""
        return [self._prompt(seed) for seed in (seeds % SEEDS).tolist()]

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """The verifier's score for each answer."""
        return [self._score(episode) for episode in episodes]

    def _prompt(self, seed: int) -> Prompt:
        puzzle = _puzzle(self.dataset, seed)
        # The seed, not the puzzle: JSON would turn its tuples into lists, and verifiers need them.
        return Prompt(
            self.template(puzzle["question"]), {"answer": puzzle["answer"], "puzzle_seed": seed}
        )

    def _score(self, episode: Episode) -> float:
        puzzle = _puzzle(self.dataset, episode.columns["puzzle_seed"])
        answer = self.extract(episode.text)
        if answer is None or not answer.strip():  # some verifiers pay for that
            return 0.0
        try:
            if not self.possible(answer, puzzle):
                return 0.0
            return float(self.dataset.score_answer(answer, puzzle))
        except Exception:
            return 0.0  # some verifiers raise on texts that are not answers at all

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and may be large


@lru_cache(REMEMBERED)
def _puzzle(dataset: Any, seed: int) -> dict[str, Any]:
    made: dict[str, Any]
    try:
        made = dataset[seed]
    except IndexError:  # the kind has a list of puzzles
        made = dataset[seed % len(dataset)]
    return made


def reasoning_gym_task(
    name: str, *, template: Template = as_it_is, extract: Extractor = whole_text, **config: Any
) -> Task:
    """Any number of puzzles of one kind, and their verifier.

    The puzzle depends on the seed alone: the index of reasoning-gym's dataset is the prompt's seed
    modulo 2**32. A few kinds, such as `word_ladder`, have only `size=500` puzzles, and a few, such
    as `ransom_note`, also depend on `PYTHONHASHSEED`. The prompts have the columns `answer` (a
    right answer, or None if the kind shows none) and `puzzle_seed`.

    Scores are the verifier's, 0 to 1, and 0 where no answer is found in the text, or where the
    verifier raises. Many kinds give a part of the score to an answer that contains the right one,
    some to a good form or to any text; docs/rewards.md lists these. Two verifiers give full marks
    to wrong answers; there the answer must also be the right word (`game_of_life_halting`) or use
    the puzzle's numbers (`puzzle24`).

    Args:
        name: Name of the kind, such as "chain_sum"; `reasoning_gym.factory.DATASETS` has them all.
        template: Makes a prompt from a question.
        extract: Finds the answer in the policy's text; use `tagged` if a template or a system
            prompt asks for <answer> tags.
        **config: The kind's own settings, such as `min_terms`.

    Raises:
        MissingExtraError: The package `reasoning-gym` is not installed.
        PromptError: The kind does not exist, or its settings are wrong.
    """
    with optional("reasoning-gym", extra="tasks", purpose=f"the task {name!r}"):
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    if name not in DATASETS:
        close = get_close_matches(name, DATASETS)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {sorted(DATASETS)}"
        raise PromptError(f"reasoning-gym has no {name!r}; {hint}")
    try:
        dataset = reasoning_gym.create_dataset(name, **{"seed": 0, **config})
    except (TypeError, ValueError, AssertionError) as error:
        raise PromptError(f"reasoning-gym cannot make {name!r} from {config}: {error}") from error
    puzzles = Puzzles(dataset, template, extract, POSSIBLE.get(name, _anything))
    return Task(puzzles, shared(puzzles.score, name))

"""A task: questions, and a reward that knows the right answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from textenv.prompts import PromptSource
from textenv.rewards import Shared

Template: TypeAlias = Callable[[str], str]
"""Takes a question and returns the prompt that asks it."""


@dataclass(frozen=True)
class Task:
    """Prompts and the verifier of their answers.

    Pass them to an environment as `prompts=task.prompts, reward=task.reward`.

    Attributes:
        prompts: Where the questions come from.
        reward: 1 for a right answer, 0 for a wrong one, or something between.
    """

    prompts: PromptSource
    reward: Shared


def as_it_is(question: str) -> str:
    """The question itself as the prompt."""
    return question

"""Who ranks answers to questions in dialogues: a simulated labeller."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agents.feedback import Ranking
from textenv import Prompt
from textenv.tasks import assistant


def ranked_by_verdicts(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[str]],
    noise: float,
    seed: int,
) -> list[Ranking]:
    """What a simulated labeller says: good answers before bad ones, with mistakes.

    Args:
        prompts: Of the world; the column `check` decides what a good answer is.
        answers: Some to each.
        noise: Probability with which an answer is taken for the contrary of what it is.
        seed: Of the mistakes.
    """
    generator = np.random.default_rng([seed, 12])
    rankings = []
    for prompt, some in zip(prompts, answers, strict=True):
        good = [assistant.correct(prompt.columns["check"], answer) for answer in some]
        mistaken = generator.random(len(some)) < noise
        labels = [float(one != wrong) for one, wrong in zip(good, mistaken, strict=True)]
        asked = prompt.messages or prompt.text
        rankings.append(Ranking.from_scores(asked, some, labels, labeller="program"))
    return rankings


def with_strays(answers: Sequence[Sequence[str]], seed: int) -> list[list[str]]:
    """Some answers to each question, and behind them one that was given to another question.

    A reward model that has never seen a good answer in the wrong place believes in it everywhere:
    PPO against it ends in "I do not know" to all questions.

    Args:
        answers: Some to each of two questions or more.
        seed: Seed of the choice.
    """
    generator = np.random.default_rng([seed, 14])
    count = len(answers)
    others = [(i + int(generator.integers(1, count))) % count for i in range(count)]
    return [
        [*some, answers[other][int(generator.integers(len(answers[other])))]]
        for some, other in zip(answers, others, strict=True)
    ]


def without_strays(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The policy's own answers to each question alone: those of other questions stand last."""
    return [
        replace(ranking, answers=ranking.answers[:-1], ranks=ranking.ranks[:-1])
        for ranking in rankings
    ]

"""Rules for what a learner does with scores: training that teaches nothing is refused or is seen.

The functions that an agent offers are tried on a few answers, or asked to train. A learner that
raises an error where it cannot learn keeps these rules too: they are about silence.
"""

from collections.abc import Callable
from typing import Protocol
from unittest import SkipTest

import numpy as np

from textenv.testing.agent_rules import Floats, Ints, Trial
from textenv.testing.learning_rules import Bools, offered
from textenv.testing.making import require

UPDATES = 4
"""For so many updates an agent is trained."""


class TrainingFunctions(Protocol):
    """Functions that an agent may offer beside `Agent`; each is optional."""

    def compare(self, scores: Floats, penalties: Floats, groups: Ints) -> Floats:
        """Advantages (S,) of whole answers that are compared with others to the same prompt.

        `scores` (S,) float64 are NaN where no reward applies, `penalties` (S,) are the KL penalties
        that are subtracted from them, and `groups` (S,) are equal for answers to one prompt.
        """
        ...

    def update(self) -> tuple[Floats, Bools] | None:
        """One update of the policy on an environment whose answers differ in their scores.

        Returns the advantages (S, L) and which tokens were chosen (S, L), or None. Afterwards
        `Agent.logprobs` speaks of the trained policy.
        """
        ...

    def split(self, texts: list[str]) -> tuple[list[str], list[str]]:
        """What of `texts` is trained on, and what is held out for the evaluation."""
        ...


def groups_of_one_are_refused(trial: Trial) -> None:
    """Where each answer is the only one of its group, nothing can be compared: an error says so."""
    compare = offered(trial, "compare")
    scores, groups = np.array([1.0, 0.0, 2.0]), np.arange(3)
    try:
        found = compare(scores, np.zeros(3), groups)
    except Exception:
        return
    require(
        False,
        f"three groups of one answer got the advantages {np.asarray(found).tolist()}: raise an "
        "error that asks for several answers to a prompt",
    )


def penalties_keep_their_size(trial: Trial) -> None:
    """Where all scores are equal, advantages are proportional to the KL penalty, or 0."""
    compare = offered(trial, "compare")
    groups = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    penalties = np.array([0.01, 0.03, 0.02, 0.04, 0.02, 0.06])
    small, large = (np.asarray(compare(scores, p, groups)) for p in (penalties, 10 * penalties))
    require(
        bool(np.allclose(10 * small, large, rtol=0.01, atol=1e-6)),
        f"with equal scores the advantages are {small.round(4).tolist()}, and with ten times the "
        f"penalties {large.round(4).tolist()}: divide by the spread of the scores, not by one that "
        "the penalties have made",
    )


def an_answer_without_score_is_left_out(trial: Trial) -> None:
    """It gets the advantage 0, and the others those of a group without it."""
    compare = offered(trial, "compare")
    with_it = np.array([1.0, 0.0, np.nan, 1.0])
    try:
        found = np.asarray(compare(with_it, np.zeros(4), np.zeros(4, dtype=np.int64)))
    except Exception:
        return
    scored = ~np.isnan(with_it)
    alone = np.asarray(compare(with_it[scored], np.zeros(3), np.zeros(3, dtype=np.int64)))
    require(
        bool(np.allclose(found[scored], alone, atol=1e-5) and found[2] == 0),
        f"the scores 1, 0, none, 1 got the advantages {found.round(4).tolist()} and the scores 1, "
        f"0, 1 {alone.round(4).tolist()}: leave what has no score out of the group's mean and "
        "deviation, and give it 0; or raise an error",
    )


def large_scores_keep_their_differences(trial: Trial) -> None:
    """Scores near 1e8 that differ by 1 are told apart."""
    compare = offered(trial, "compare")
    scores, groups = np.array([0.0, 1.0, 3.0, 4.0]), np.zeros(4, dtype=np.int64)
    near_0, near_1e8 = (np.asarray(compare(x, np.zeros(4), groups)) for x in (scores, scores + 1e8))
    require(
        bool(np.allclose(near_0, near_1e8, rtol=0.01, atol=1e-3)),
        f"the scores {scores.tolist()} got the advantages {near_0.round(4).tolist()}, and with 1e8 "
        f"added to each {near_1e8.round(4).tolist()}: take differences in float64",
    )


def an_update_changes_the_policy(trial: Trial) -> None:
    """After an update the policy has other log-probabilities, or an error says why not."""
    update = offered(trial, "update")
    actions, _ = trial.agent.sample(trial.observations)
    before = np.asarray(trial.agent.logprobs(trial.observations, actions))
    try:
        for _ in range(UPDATES):
            update()
    except Exception:
        return
    moved = np.abs(np.asarray(trial.agent.logprobs(trial.observations, actions)) - before).max()
    require(
        moved > 1e-7,
        f"after {UPDATES} updates no log-probability has changed by more than {moved}: look for "
        "frozen parameters, a learning rate of 0, and advantages that are all 0",
    )


def what_was_chosen_is_learned_from(trial: Trial) -> None:
    """Most chosen tokens have an advantage that is not 0."""
    update = offered(trial, "update")
    chosen = learned = 0
    for _ in range(UPDATES):
        try:
            told = update()
        except Exception:
            return
        if told is None:
            raise SkipTest("`update` returns no advantages")
        advantages, mask = np.asarray(told[0]), np.asarray(told[1])
        chosen += int(mask.sum())
        learned += int((advantages[mask] != 0).sum())
    require(
        2 * learned > chosen,
        f"{learned} of {chosen} chosen tokens have an advantage: wait for whole episodes and whole "
        "groups instead of cutting them",
    )


def held_out_texts_are_not_trained_on(trial: Trial) -> None:
    """A text that is held out is nowhere among those that are trained on."""
    split = offered(trial, "split")
    train, held_out = split([f"text {number % 8}" for number in range(64)])
    require(
        bool(held_out) and not set(train) & set(held_out),
        f"of 64 texts, 8 of them different, {sorted(set(train) & set(held_out))} are held out and "
        "trained on: choose among the different texts",
    )


TRAINING_RULES: tuple[Callable[[Trial], None], ...] = (
    groups_of_one_are_refused,
    penalties_keep_their_size,
    an_answer_without_score_is_left_out,
    large_scores_keep_their_differences,
    an_update_changes_the_policy,
    what_was_chosen_is_learned_from,
    held_out_texts_are_not_trained_on,
)
"""The rules for what a learner does with scores; each docstring states its rule in a sentence."""

"""Feedback while the policy learns: its present answers are ranked, again and again.

A reward model knows the answers it was trained on. PPO leads the policy away from these, to where
the model is wrong and PPO makes the most of it (Gao et al., "Scaling Laws for Reward Model
Overoptimization", 2023, arXiv:2210.10760). Bai et al., "Training a Helpful and Harmless Assistant"
(2022), arXiv:2204.05862, section 4.5, so renew the model with preferences about fresh answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.feedback.preferences import Labeller, Ranking, laid_flat, rank, sample_answers
from agents.feedback.reward_modelling import normalise, reward_model_steps
from agents.learner import Learner
from agents.runs.update import Update
from policies.reward_model import RewardModel


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        number: Rounds so far, from 1.
        rankings: Of the policy's answers at the beginning of this round; the model learned from
            these and all before them.
        updates: What PPO then did, without the rollouts.
    """

    number: int
    rankings: list[Ranking]
    updates: list[Update]


def online_rounds(
    learner: Learner,
    prompts: Sequence[str],
    labeller: Labeller,
    fit: Callable[[Sequence[Ranking]], object],
    *,
    rounds: int,
    tokens_per_round: int,
    prompts_per_round: int = 64,
    answers_per_prompt: int = 4,
    max_new_tokens: int = 64,
    rankings: Sequence[Ranking] = (),
    seed: int = 0,
) -> Iterator[Round]:
    """Collect answers, rank them, fit the reward model to all rankings so far, go on with PPO.

    Args:
        learner: Its environment has the reward model as its reward, the object that `fit` changes.
        prompts: Of which every round draws some.
        labeller: Who ranks the answers.
        fit: Fits the reward model to rankings; `lambda rankings: fit_reward_model(model, rankings)`
            is enough.
        rounds: How many.
        tokens_per_round: That the learner chooses in each; a rollout begun is finished.
        prompts_per_round: Prompts to be answered in each.
        answers_per_prompt: K.
        max_new_tokens: Token budget of these answers.
        rankings: Earlier ones, from which the model learns too.
        seed: Of the choice of prompts and of the answers.
    """
    known = list(rankings)
    generator = np.random.default_rng(seed)
    begin = learner.tokens_done
    # One generator for all rounds: a learning rate that falls does so over all of them.
    updates = learner.updates(begin + rounds * tokens_per_round)
    for number in range(1, rounds + 1):
        count = min(prompts_per_round, len(prompts))
        asked = [prompts[i] for i in generator.choice(len(prompts), count, replace=False)]
        answers = sample_answers(
            learner.policy,
            asked,
            answers_per_prompt,
            max_new_tokens=max_new_tokens,
            temperature=learner.settings.temperature,
            seed=int(generator.integers(2**32)),
        )
        fresh = rank(labeller, asked, answers)
        known += fresh
        fit(known)
        done = []
        while learner.tokens_done < begin + number * tokens_per_round:
            done.append(replace(next(updates), rollout=None))
        yield Round(number, fresh, done)


def fit_reward_model(model: RewardModel, rankings: Sequence[Ranking], **training: Any) -> None:
    """Go on training `model` with all `rankings`, and put their answers' mean to 0.

    If no ranking says that one answer is better than another, there is nothing to learn.

    Args:
        model: What learns.
        rankings: At least one.
        **training: The other arguments of `reward_model_steps`.
    """
    if any(len(set(ranking.ranks)) > 1 for ranking in rankings):
        for _ in reward_model_steps(model, rankings, **training):
            pass
    normalise(model, *laid_flat(rankings))

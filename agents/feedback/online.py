"""Feedback while the policy learns: its present answers are ranked in every round.

A reward model knows the answers it was trained on. PPO leads the policy away from them, to answers
that the model judges wrongly, and exploits its mistakes (Gao et al., "Scaling Laws for Reward Model
Overoptimization", 2023, arXiv:2210.10760). Bai et al., "Training a Helpful and Harmless Assistant"
(2022), arXiv:2204.05862, section 4.5, therefore train the model again on preferences about fresh
answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.feedback.preferences import Labeller, rank, sample_answers
from agents.feedback.rankings import Asked, Ranking, laid_flat
from agents.feedback.reward_modelling import normalise, reward_model_steps
from agents.learner import Learner
from agents.runs.update import Update
from policies.reward_model import RewardModel
from textenv.frames import Frame


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        number: Number of the round, from 1.
        rankings: Rankings of the policy's answers at the beginning of this round; the model learned
            from these and all earlier ones.
        updates: The PPO updates that followed, without their rollouts.
    """

    number: int
    rankings: list[Ranking]
    updates: list[Update]


def online_rounds(
    learner: Learner,
    prompts: Sequence[Asked],
    labeller: Labeller,
    fit: Callable[[Sequence[Ranking]], object],
    *,
    rounds: int,
    tokens_per_round: int,
    prompts_per_round: int = 64,
    answers_per_prompt: int = 4,
    max_new_tokens: int = 64,
    rankings: Sequence[Ranking] = (),
    frame: Frame | None = None,
    seed: int = 0,
) -> Iterator[Round]:
    """Collect answers, rank them, fit the reward model to all rankings so far, continue with PPO.

    Args:
        learner: Its environment's reward is the reward model, the same object that `fit` changes.
        prompts: Every round draws some of these.
        labeller: Ranks the answers.
        fit: Fits the reward model to rankings; `lambda rankings: fit_reward_model(model, rankings)`
            is enough.
        rounds: Number of rounds.
        tokens_per_round: Tokens that the learner chooses in a round; a rollout that has begun is
            finished.
        prompts_per_round: Prompts that are answered in a round.
        answers_per_prompt: Number of answers to each of these prompts.
        max_new_tokens: Token budget of these answers.
        rankings: Earlier rankings; the model learns from them too.
        frame: What wraps the prompts, that of the learner's environment; None for texts as they
            are.
        seed: Seed of the choice of prompts and of the answers.
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
            frame=frame,
            max_new_tokens=max_new_tokens,
            temperature=learner.settings.temperature,
            seed=int(generator.integers(2**32)),
        )
        fresh = rank(labeller, asked, answers)
        known += fresh
        # All rankings, not the fresh ones alone: the model must not forget what it knew before.
        fit(known)
        done = []
        while learner.tokens_done < begin + number * tokens_per_round:
            done.append(replace(next(updates), rollout=None))
        yield Round(number, fresh, done)


def fit_reward_model(model: RewardModel, rankings: Sequence[Ranking], **training: Any) -> None:
    """Continue training `model` with all `rankings`, and shift their answers' mean score to 0.

    If no ranking says that one answer is better than another, there is nothing to learn.

    Args:
        model: The model to train.
        rankings: At least one ranking.
        **training: The other arguments of `reward_model_steps`.
    """
    if any(len(set(ranking.ranks)) > 1 for ranking in rankings):
        for _ in reward_model_steps(model, rankings, **training):
            pass
    normalise(model, *laid_flat(rankings, model.frame))

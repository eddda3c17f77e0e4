"""Feedback while the policy learns: its present answers are ranked in every round.

A reward model knows the answers it was trained on. PPO leads the policy away from them, to answers
that the model judges wrongly, and exploits its mistakes (Gao et al., "Scaling Laws for Reward Model
Overoptimization", 2023, arXiv:2210.10760). Bai et al., "Training a Helpful and Harmless Assistant"
(2022), arXiv:2204.05862, section 4.5, therefore train the model again on preferences about fresh
answers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from agents.feedback.preferences import Labeller, rank, sample_answers
from agents.feedback.rankings import Asked, Ranking, for_frame, laid_flat
from agents.feedback.reward_modelling import RewardModelStep, normalise, reward_model_steps
from agents.feedback.segments import sample_segments
from agents.learner import Learner
from agents.runs.stages import Advance
from agents.runs.update import Update
from policies.reward_model import RewardModel
from textenv.frames import Frame

RANKINGS = "rankings"
"""The unit of the part of a round in which answers are ranked."""


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


Show: TypeAlias = Callable[[str, int, str], AbstractContextManager[Advance]]
"""Shows a part of a round: its name, how much there is to do, and of what."""


@contextmanager
def unseen(name: str, total: int, unit: str) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda done, note="": None


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
    segment_tokens: int | None = None,
    rankings: Sequence[Ranking] = (),
    first: int = 1,
    begun_at: int | None = None,
    begun_with: Sequence[Ranking] | None = None,
    frame: Frame | None = None,
    seed: int = 0,
    show: Show = unseen,
    on_update: Callable[[Update, Sequence[Ranking]], object] = lambda update, fresh: None,
) -> Iterator[Round]:
    """Collect answers, rank them, fit the reward model to all rankings so far, continue with PPO.

    A round depends on the learner, the seed and its number alone, so that rounds can be resumed:
    with the learner as it was saved after round n, its `rankings`, `first=n + 1` and `begun_at`.

    Args:
        learner: Its environment's reward is the reward model, the same object that `fit` changes.
        prompts: Every round draws some of these.
        labeller: Ranks the answers.
        fit: Fits the reward model to rankings; `lambda rankings: fit_reward_model(model, rankings)`
            is enough, or `fit_token_reward` for a model of segments.
        rounds: Number of the last round.
        tokens_per_round: Tokens that the learner chooses in a round; a rollout that has begun is
            finished.
        prompts_per_round: Prompts that are answered in a round.
        answers_per_prompt: Number of answers to each of these prompts.
        max_new_tokens: Token budget of these answers.
        segment_tokens: Rank segments of at most this many tokens that go on from a part of an
            answer (`sample_segments`) instead of whole answers.
        rankings: Earlier rankings; the model learns from them too.
        first: Number of the first round.
        begun_at: `learner.tokens_done` at the beginning of round 1; now if None.
        begun_with: The rankings of round `first` if it was stopped while PPO went on: the reward
            model has learned from them, and they are not among `rankings`.
        frame: What wraps the prompts, that of the learner's environment; None for texts as they
            are.
        seed: Seed of the choice of prompts and of the answers.
        show: Shows how far a round is, such as `Stages.bar`.
        on_update: Called after each PPO update with it and the round's rankings.
    """
    known = list(rankings)
    begin = learner.tokens_done if begun_at is None else begun_at
    # One generator for all rounds: a learning rate that falls does so over all of them.
    updates = learner.updates(begin + rounds * tokens_per_round)

    def ranked(number: int) -> list[Ranking]:
        """Answers of the present policy to some prompts, ranked."""
        generator = np.random.default_rng([seed, number])
        count = min(prompts_per_round, len(prompts))
        asked = [prompts[i] for i in generator.choice(len(prompts), count, replace=False)]
        sampling: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "temperature": learner.settings.temperature,
            "seed": int(generator.integers(2**32)),
        }
        title = f"Round {number} of {rounds}"
        with show(f"{title}: answers", count * answers_per_prompt, "answers") as advance:
            if segment_tokens is None:
                answers = sample_answers(
                    learner.policy,
                    asked,
                    answers_per_prompt,
                    frame=frame,
                    on_answers=advance,
                    **sampling,
                )
            else:
                asked, answers = sample_segments(
                    learner.policy,
                    asked,
                    answers_per_prompt,
                    segment_tokens=segment_tokens,
                    **sampling,
                )
                advance(count * answers_per_prompt)
        fresh: list[Ranking] = []
        with show(f"{title}: ranking", count, RANKINGS) as advance:
            for prompt, some in zip(asked, answers, strict=True):
                fresh += rank(labeller, [prompt], [some])
                advance(len(fresh))
        return fresh

    for number in range(first, rounds + 1):
        if number == first and begun_with is not None:
            fresh = list(begun_with)
            known += fresh
        else:
            fresh = ranked(number)
            known += fresh
            # All rankings, not the fresh ones alone: the model must not forget what it knew.
            fit(known)
        title = f"Round {number} of {rounds}"
        done: list[Update] = []
        until = begin + number * tokens_per_round
        with show(f"{title}: PPO", max(until - learner.tokens_done, 1), "tokens") as advance:
            before = learner.tokens_done
            while learner.tokens_done < until:
                done.append(replace(next(updates), rollout=None))
                advance(learner.tokens_done - before, f"score {done[-1].score:.3f}")
                on_update(done[-1], fresh)
        yield Round(number, fresh, done)


def fit_reward_model(
    model: RewardModel,
    rankings: Sequence[Ranking],
    *,
    on_step: Callable[[RewardModelStep], object] = lambda step: None,
    **training: Any,
) -> None:
    """Continue training `model` with all `rankings`, and shift their answers' mean score to 0.

    If no ranking says that one answer is better than another, there is nothing to learn.

    Args:
        model: The model to train.
        rankings: At least one ranking.
        on_step: Called after each optimiser step.
        **training: The other arguments of `reward_model_steps`.
    """
    if any(len(set(ranking.ranks)) > 1 for ranking in rankings):
        for step in reward_model_steps(model, rankings, **training):
            on_step(step)
    normalise(model, *laid_flat(for_frame(rankings, model.frame)))

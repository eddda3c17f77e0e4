"""Fresh rankings in rounds against as many rankings in advance, whole answers and segments.

A small GPT writes six of four letters, and a program likes b and dislikes c. Nobody tells the
policy so: all that is learned comes from rankings of four answers. Three ways spend the same
rankings and the same tokens of PPO:

- online: some rankings of the present answers in each round, and a reward model fitted to all;
- online, segments: the same with segments of two letters and a reward for each token;
- in advance: all rankings of the first policy's answers, one reward model, then PPO.

    python -m benchmarks.online_feedback --figure docs/figures/online_feedback.svg
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from agents import PPO, Learner
from agents.feedback import (
    Ranking,
    fit_reward_model,
    fit_token_reward,
    online_rounds,
    rank,
    sample_answers,
)
from agents.report.figures import curve_svg
from agents.report.parts import Curve
from benchmarks.common import report
from policies import RewardModel, TransformerConfig, TransformerPolicy
from policies.token_reward import TokenReward
from textenv import TextVectorEnv
from textenv.tokenizers import CharacterTokenizer

LETTERS, LENGTH, SEGMENT = "abcd", 6, 2
PROMPTS = [a + b for a in LETTERS for b in LETTERS]
PROMPTS_PER_ROUND, TOKENS_PER_ROUND = 8, 1024
WAYS = ("online", "online, segments", "in advance")


def likes(prompt: str, answers: Sequence[str]) -> list[int]:
    """How many more letters of each answer are b than c.

    The labeller, and what is measured; learners see its ranks only.
    """
    return [answer.count("b") - answer.count("c") for answer in answers]


def measured(policy: TransformerPolicy) -> float:
    """Mean of what the labeller likes in answers to all prompts."""
    answers = sample_answers(policy, PROMPTS, 8, max_new_tokens=LENGTH, seed=1)
    return float(np.mean([likes("", some) for some in answers]))


def run(way: str, rounds: int, seed: int) -> list[float]:
    """What is measured at the beginning and after each round."""
    tokenizer = CharacterTokenizer(LETTERS)
    shape = TransformerConfig(tokenizer.vocab_size, 16, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=seed)
    segments = way == "online, segments"
    model = (TokenReward if segments else RewardModel).from_policy(policy, seed)
    reward = model.as_reward() if isinstance(model, TokenReward) else model
    envs = TextVectorEnv(
        64, prompts=PROMPTS, reward=reward, tokenizer=tokenizer, max_new_tokens=LENGTH
    )
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=2, minibatch_tokens=512),
        reference=policy.frozen_copy(),
        kl_coef=0.02,
        learning_rate=3e-3,
        n_steps=LENGTH,
        seed=seed,
    )

    def fit(rankings: Sequence[Ranking]) -> None:
        fitted: Callable[..., None] = fit_token_reward if segments else fit_reward_model
        fitted(model, rankings, epochs=8, batch_size=8, learning_rate=3e-3, seed=seed)

    reached = [measured(policy)]
    if way == "in advance":
        generator = np.random.default_rng(seed)
        asked = [
            PROMPTS[i] for i in generator.integers(len(PROMPTS), size=rounds * PROMPTS_PER_ROUND)
        ]
        answers = sample_answers(policy, asked, 4, max_new_tokens=LENGTH, seed=seed)
        fit(rank(likes, asked, answers))
        for update in learner.updates(rounds * TOKENS_PER_ROUND):
            if update.tokens >= len(reached) * TOKENS_PER_ROUND:
                reached.append(measured(policy))
        return reached
    for _ in online_rounds(
        learner,
        PROMPTS,
        likes,
        fit,
        rounds=rounds,
        tokens_per_round=TOKENS_PER_ROUND,
        prompts_per_round=PROMPTS_PER_ROUND,
        max_new_tokens=LENGTH,
        segment_tokens=SEGMENT if segments else None,
        seed=seed,
    ):
        reached.append(measured(policy))
    return reached


def main() -> None:
    """Run all ways on all seeds, print a table, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--figure", type=Path, help="a file for the curves, such as online.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    curves: dict[str, np.ndarray] = {}

    def rows() -> Iterator[dict[str, object]]:
        for way in WAYS:
            found = [run(way, arguments.rounds, seed) for seed in range(arguments.seeds)]
            curves[way] = np.array(found)
            ends = curves[way][:, -1]
            yield {
                "way": way,
                "before": curves[way][:, 0].mean(),
                "after": ends.mean(),
                "deviation over seeds": ends.std(ddof=1) if len(ends) > 1 else float("nan"),
                "lowest": ends.min(),
                "highest": ends.max(),
            }

    report("online feedback", rows(), seeds=arguments.seeds, rounds=arguments.rounds)
    if arguments.figure is not None:
        places = np.arange(arguments.rounds + 1) * PROMPTS_PER_ROUND
        curve = Curve(
            "Fresh rankings",
            "prompts whose answers were ranked (in advance: the same share of PPO)",
            f"b less c among {LENGTH} letters",
            {way: list(zip(places, c.mean(0), strict=True)) for way, c in curves.items()},
            {way: list(zip(places, c.min(0), c.max(0), strict=True)) for way, c in curves.items()},
        )
        arguments.figure.write_text(curve_svg(curve, "online"), encoding="utf-8")


if __name__ == "__main__":
    main()

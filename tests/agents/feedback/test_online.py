"""Rounds of collecting, ranking, fitting and PPO."""

import numpy as np
import torch
from letters import Letters

from agents import PPO, Learner
from agents.feedback import Ranking, fit_reward_model, online_rounds, rank
from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import RewardModel
from textenv import TextVectorEnv

torch.set_num_threads(1)
PROMPTS = [a + b for a in "abcd" for b in "abcd"]


def count_b(prompt, answers):
    return [answer.count("b") for answer in answers]


def make_learner(seed=0, **options):
    """A policy of four letters, whose answers of at most three a reward model scores."""
    tokenizer = Letters(4, stop=True)
    shape = TransformerConfig(5, context=8, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=seed)
    model = RewardModel.from_policy(policy, seed)
    envs = TextVectorEnv(32, prompts=PROMPTS, reward=model, tokenizer=tokenizer, max_new_tokens=3)
    options = {"learning_rate": 3e-3, "n_steps": 4, "seed": seed} | options
    return Learner(policy, envs, PPO(n_epochs=2), **options), model


def test_the_policy_comes_to_answer_as_the_labeller_likes():
    learner, model = make_learner(learning_rate=1e-2)

    def fit(rankings):
        fit_reward_model(model, rankings, epochs=10, batch_size=4, learning_rate=3e-3)

    liked = [
        np.mean([score for r in round_.rankings for score in count_b(r.prompt, r.answers)])
        for round_ in online_rounds(
            learner,
            PROMPTS,
            count_b,
            fit,
            rounds=3,
            tokens_per_round=1200,
            max_new_tokens=3,
        )
    ]
    # What is ranked comes from a policy that has learned in 0, 1 and 2 rounds.
    assert liked[0] < 1 < liked[1] < liked[2] and liked[2] > 2


def test_each_round_fits_all_rankings_so_far_and_goes_on_with_ppo():
    rates = []

    def rate(done):
        rates.append(done)
        return 1e-3

    learner, _ = make_learner(learning_rate=rate)
    seen, tokens = [], []
    earlier = [Ranking("a", ("b", "c"), (1, 2))]
    rounds = []
    for round_ in online_rounds(
        learner,
        PROMPTS[:3],
        count_b,
        lambda rankings: (seen.append(list(rankings)), tokens.append(learner.tokens_done)),
        rounds=3,
        tokens_per_round=200,
        prompts_per_round=2,
        answers_per_prompt=3,
        max_new_tokens=3,
        rankings=earlier,
    ):
        rounds.append(round_)
        assert learner.tokens_done >= 200 * round_.number
    assert [round_.number for round_ in rounds] == [1, 2, 3]
    assert tokens == [0, *(round_.updates[-1].tokens for round_ in rounds[:-1])]
    known = list(earlier)
    for round_, fitted in zip(rounds, seen, strict=True):
        prompts = [ranking.prompt for ranking in round_.rankings]
        answers = [ranking.answers for ranking in round_.rankings]
        assert len(set(prompts)) == 2 and all(len(some) == 3 for some in answers)
        assert rank(count_b, prompts, answers) == round_.rankings
        known += round_.rankings
        assert fitted == known
    numbers = [update.number for round_ in rounds for update in round_.updates]
    assert numbers == list(range(1, learner.updates_done + 1))
    assert all(update.rollout is None for round_ in rounds for update in round_.updates)
    # The learning rate follows the progress of all rounds together.
    done = [update.tokens for round_ in rounds for update in round_.updates]
    assert rates == [0, *(tokens / 600 for tokens in [0, *done[:-1]])]  # the first makes the Adam


def test_fitting_puts_the_mean_to_zero_and_bears_ties():
    _, model = make_learner()
    ties = [Ranking("a", ("b", "c"), (1, 1))]
    fit_reward_model(model, ties)
    assert abs(model.score_texts(["a", "a"], ["b", "c"]).mean()) < 1e-6
    rankings = [*ties, Ranking("a", ("bb", "c", "cc"), (1, 2, 2))]
    fit_reward_model(model, rankings)
    answers = [answer for ranking in rankings for answer in ranking.answers]
    assert abs(model.score_texts(["a"] * 5, answers).mean()) < 1e-6

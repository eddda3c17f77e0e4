"""Rounds of collecting, ranking, fitting and PPO."""

import numpy as np
import pytest
import torch
from letters import Letters

from agents import PPO, Learner
from agents.feedback import (
    Ranking,
    Remembered,
    fit_reward_model,
    fit_token_reward,
    online_rounds,
    rank,
    read_rankings,
)
from policies import TransformerConfig, TransformerPolicy
from policies.reward_model import RewardModel
from policies.token_reward import TokenReward
from textenv import TextVectorEnv
from textenv.errors import RewardRaisedError

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


def test_segments_teach_the_policy_through_rewards_of_tokens():
    tokenizer = Letters(4, stop=True)
    shape = TransformerConfig(5, context=8, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=tokenizer, seed=0)
    model = TokenReward.from_policy(policy, 0)
    reward = model.as_reward()
    envs = TextVectorEnv(32, prompts=PROMPTS, reward=reward, tokenizer=tokenizer, max_new_tokens=3)
    learner = Learner(policy, envs, PPO(n_epochs=2), learning_rate=1e-2, n_steps=4, seed=0)

    def fit(rankings):
        fit_token_reward(model, rankings, epochs=10, batch_size=4, learning_rate=3e-3)

    rounds = list(
        online_rounds(
            learner,
            PROMPTS,
            count_b,
            fit,
            rounds=3,
            tokens_per_round=800,
            max_new_tokens=3,
            segment_tokens=1,
        )
    )
    liked = [np.mean([count_b("", r.answers) for r in round_.rankings]) for round_ in rounds]
    assert liked[0] < 0.4 and liked[2] > 0.8  # of the one letter of a segment
    assert any(len(ranking.prompt) > 2 for ranking in rounds[0].rankings)


def test_rounds_go_on_from_a_learner_that_was_saved(tmp_path):
    options = {"rounds": 2, "tokens_per_round": 200, "max_new_tokens": 3, "prompts_per_round": 4}

    def fit_of(model):
        return lambda rankings: fit_reward_model(model, rankings)

    learner, model = make_learner()
    whole = list(online_rounds(learner, PROMPTS, count_b, fit_of(model), **options))
    learner, model = make_learner()
    first = next(online_rounds(learner, PROMPTS, count_b, fit_of(model), **options))
    learner.save(tmp_path / "learner")
    model.save(tmp_path / "model")
    learner, model = make_learner()
    learner.load(tmp_path / "learner")
    RewardModel.load(tmp_path / "model", trunk=model.trunk)
    model.mean.copy_(RewardModel.load(tmp_path / "model", Letters(4, stop=True)).mean)
    more = {"rankings": first.rankings, "first": 2, "begun_at": 0}
    (second,) = online_rounds(learner, PROMPTS, count_b, fit_of(model), **options, **more)
    assert first.rankings == whole[0].rankings and second.rankings == whole[1].rankings
    assert [u.score for u in second.updates] == [u.score for u in whole[1].updates]


def test_what_was_ranked_is_not_asked_again(tmp_path):
    asked = []

    def label(prompt, answers):
        asked.append(prompt)
        if prompt == "q":
            raise ZeroDivisionError("oh")
        return count_b(prompt, answers)

    path = tmp_path / "made" / "rankings.jsonl"
    remembered = Remembered(label, path)
    (one,) = rank(remembered, ["p"], [["b", "bb", "c", "a"]])
    assert one.ranks == (2, 1, 3, 3) and read_rankings(path) == [one]
    assert rank(remembered, ["p"], [["b", "bb", "c", "a"]]) == [one]
    assert rank(Remembered(label, path), ["p"], [["b", "bb", "c", "a"]]) == [one]
    assert asked == ["p"]
    rank(remembered, ["p"], [["bb", "b", "c", "a"]])  # in another order
    assert asked == ["p", "p"]
    with pytest.raises(RewardRaisedError, match=r"^the labeller raised ZeroDivisionError"):
        rank(remembered, ["q"], [["a", "b"]])

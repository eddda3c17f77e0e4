"""GRPO: advantages of a group by hand, and a task it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents import DAPO, GRPO, Learner, losses
from policies import TransformerPolicy
from textenv import TextVectorEnv

torch.set_num_threads(1)


def share_of_even_ids(episodes):
    return [float(np.mean(e.tokens % 2 == 0)) for e in episodes]


def make_learner(seed, **options):
    envs = TextVectorEnv(
        32,
        prompts=["the ", "a "],
        reward=share_of_even_ids,
        max_new_tokens=16,
        stop_tokens=[],
        group_size=8,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64, seed=seed)
    return Learner(policy, envs, GRPO(n_epochs=2), n_episodes=32, seed=seed, **options)


def test_advantages_are_standardised_scores_of_the_group():
    learner = make_learner(0)
    rollout = learner.collect()
    advantages = GRPO().advantages(rollout)
    groups, scores = rollout.groups.numpy(), rollout.scores.numpy()
    assert sorted(np.unique(groups, return_counts=True)[1]) == [8, 8, 8, 8]
    for group in np.unique(groups):
        of_group = scores[groups == group]
        expected = (of_group - of_group.mean()) / (of_group.std() + 1e-4)
        np.testing.assert_allclose(advantages[groups == group], expected, atol=1e-4)


def test_the_first_gradient_is_the_policy_gradient():
    learner = make_learner(0)
    rollout = learner.collect()
    policy = learner.policy
    advantages = GRPO().advantages(rollout)
    gradients = []
    for loss_of in (
        lambda s: GRPO().loss(replace(rollout, advantages=advantages), s)[0],
        lambda s: losses.policy_gradient(s.logprobs, advantages, rollout.mask),
    ):
        policy.zero_grad()
        loss_of(policy.outputs(rollout.tokens, rollout.mask)).backward()
        gradients.append(policy.transformer.token_embedding.weight.grad.clone())
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_to_choose_even_ids(seed):
    learner = make_learner(seed, learning_rate=3e-3)
    first = learner.update().score
    assert first == pytest.approx(0.5, abs=0.06)
    for _ in range(24):
        last = learner.update().score
    assert last > 0.9


def test_dapo_asks_for_more_where_all_of_a_group_score_alike():
    """All that was played counts as tokens and in the return; only what teaches is learned from."""
    rewards = iter([0.0] * 32 + [0.0, 1.0] * 1000)
    envs = TextVectorEnv(
        32,
        prompts=["the "],
        reward=lambda episodes: [next(rewards) for _ in episodes],
        max_new_tokens=2,
        stop_tokens=[],
        group_size=8,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    update = Learner(policy, envs, DAPO(), n_episodes=32).update()
    assert len(update.rollout) == 32 and set(update.rollout.scores.tolist()) == {0.0, 1.0}
    assert (update.episodes, update.tokens, update.score) == (64, 128, 0.25)
    # Where nothing ever teaches it gives up.
    rewards = iter([1.0] * 10_000)
    update = Learner(policy, envs, DAPO(max_rollouts=3), n_episodes=32).update()
    assert (update.episodes, len(update.rollout)) == (96, 32)

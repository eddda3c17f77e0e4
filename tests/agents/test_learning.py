"""PPO learns: the share of even token ids rises from a half to nearly all."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import PPO, Learner
from policies import TransformerPolicy

torch.set_num_threads(1)


def share_of_even_ids(episodes):
    return [float(np.mean(e.tokens % 2 == 0)) for e in episodes]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ppo_learns_to_choose_even_ids(seed):
    envs = gym.make_vec(
        "textenv/Generate-v0",
        num_envs=32,
        prompts=["the ", "a "],
        reward=share_of_even_ids,
        tokenizer="bytes",
        max_new_tokens=16,
        stop_tokens=[],  # every answer has 16 tokens: the share cannot be had by stopping early
    )
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64, seed=seed)
    learner = Learner(policy, envs, PPO(), learning_rate=2e-3, n_steps=16, seed=seed)
    updates = list(learner.updates(total_tokens=14_000))
    assert updates[0].score == pytest.approx(0.5, abs=0.06)

    # Measured afresh, by the policy as it is at the end.
    observations, _ = envs.reset(seed=1_000 + seed)
    shares, cache = [], policy.new_cache(envs.num_envs)
    for _ in range(4 * 16):
        step = policy.act(observations, cache)
        observations, rewards, terminated, _, _ = envs.step(step.actions)
        shares.extend(rewards[terminated])
    assert len(shares) == 128
    assert np.mean(shares) > 0.9

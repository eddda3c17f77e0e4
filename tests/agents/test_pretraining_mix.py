"""PPO-ptx: the gradient of PPO plus that of the text, and text that is not forgotten."""

import numpy as np
import pytest
import torch
from toys import letters_env

from agents import PPO, Learner, PPOPtx
from agents.supervised import held_out_loss, next_token_loss
from agents.supervised.pretraining import random_windows
from policies import TransformerConfig, TransformerPolicy

STREAM = np.arange(200) % 4
SETTINGS = {"minibatch_tokens": None, "n_epochs": 1}


def learner(algorithm, seed: int = 0) -> Learner:
    policy = TransformerPolicy(TransformerConfig(5, 16, 1, 2, 16), seed=seed)
    return Learner(policy, letters_env(8), algorithm, n_steps=8, learning_rate=3e-3, seed=seed)


def test_the_gradient_is_the_sum_of_both():
    ptx = PPOPtx(**SETTINGS, stream=STREAM, ptx_coef=0.5, ptx_window=8, ptx_batch=4)
    mixed, plain = learner(ptx), learner(PPO(**SETTINGS))
    gradients = []
    for one in (mixed, plain):
        one.descend = lambda loss, one=one: (
            gradients.append(torch.autograd.grad(loss, one.trained, allow_unused=True))
            or torch.tensor(0.0)
        )
    generator = np.random.default_rng([0, 1])
    for one in (mixed, plain):
        rollout = one.collect()
        one.learn_from(rollout)
    windows = random_windows(STREAM, generator, 4, 8)
    text = torch.autograd.grad(
        next_token_loss(mixed.policy, windows), mixed.trained, allow_unused=True
    )
    for both, ppo, reading in zip(*gradients, text, strict=True):
        expected = ppo if reading is None else ppo + 0.5 * reading
        torch.testing.assert_close(both, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_text_is_kept_where_plain_ppo_forgets_it(seed):
    losses = {}
    for name, algorithm in (
        ("ppo", PPO(minibatch_tokens=None)),
        ("ptx", PPOPtx(minibatch_tokens=None, stream=STREAM, ptx_window=8, ptx_coef=4.0)),
    ):
        one = learner(algorithm, seed)
        list(one.updates(4000))
        losses[name] = held_out_loss(one.policy, STREAM, window=8)
    assert losses["ptx"] < 0.5 < losses["ppo"]


def test_a_stream_without_a_window_is_refused():
    with pytest.raises(ValueError, match="10 tokens"):
        PPOPtx(stream=np.arange(10))

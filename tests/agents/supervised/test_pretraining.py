import math

import numpy as np
import pytest
import torch

from agents.pretraining import (
    held_out_loss,
    learning_rate_factor,
    next_token_loss,
    pretraining_steps,
)
from policies import TransformerConfig, TransformerPolicy

VOCAB = 8


def small_policy(seed: int = 0) -> TransformerPolicy:
    return TransformerPolicy(TransformerConfig(VOCAB, 16, 1, 2, 16), seed=seed)


def forks(length: int, seed: int) -> np.ndarray:
    """Token t is followed by t + 1 or t + 3, either with probability 1/2: ln 2 nats a token."""
    steps = np.random.default_rng(seed).choice([1, 3], length)
    return np.cumsum(steps) % VOCAB


def test_the_loss_falls_from_uniform_to_the_entropy_of_the_text():
    policy = small_policy()
    before = held_out_loss(policy, forks(2000, seed=1), window=8)
    assert before == pytest.approx(math.log(VOCAB), abs=0.1)
    for _ in pretraining_steps(
        policy, forks(20_000, seed=0), total_tokens=20_000, window=8, learning_rate=1e-2
    ):
        pass
    after = held_out_loss(policy, forks(2000, seed=1), window=8)
    assert after == pytest.approx(math.log(2), abs=0.05)


def test_loss_is_that_of_scoring_the_same_windows():
    torch.manual_seed(0)
    policy, windows = small_policy(), torch.randint(0, VOCAB, (3, 9))
    mask = torch.ones_like(windows, dtype=torch.bool)
    mask[:, 0] = False
    logprobs = policy.score(windows, mask).logprobs
    expected = -logprobs.sum().item() / 24
    assert next_token_loss(policy, windows).item() == pytest.approx(expected, abs=1e-6)


def test_steps_count_tokens_and_follow_the_schedule():
    steps = list(
        pretraining_steps(
            small_policy(),
            forks(100, seed=0),
            total_tokens=1000,
            window=8,
            batch_size=4,
            learning_rate=0.5,
        )
    )
    assert [step.number for step in steps] == list(range(1, 33))  # 1000 / 32, rounded up
    assert steps[-1].tokens == 32 * 32
    assert steps[-1].learning_rate == pytest.approx(0.05)
    assert max(step.learning_rate for step in steps) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("done", "factor"), [(0.01, 0.2), (0.05, 1.0), (0.525, 0.55), (1.0, 0.1)])
def test_learning_rate_by_hand(done, factor):
    assert learning_rate_factor(done, warmup=0.05) == pytest.approx(factor)


def test_same_seed_same_bits():
    def weights(seed: int) -> torch.Tensor:
        policy = small_policy()
        list(pretraining_steps(policy, forks(500, 0), total_tokens=500, window=8, seed=seed))
        return policy.transformer.token_embedding.weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_value_head_is_left_alone():
    policy = small_policy()
    list(pretraining_steps(policy, forks(100, 0), total_tokens=100, window=8))
    assert not policy.value_head.weight.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 17}, "window is 17"),
        ({"window": 0}, "window is 0"),
        ({"stream": np.arange(8)}, "8 tokens"),
        ({"total_tokens": 0}, "total_tokens is 0"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(wrong, message):
    arguments = {"stream": forks(100, 0), "total_tokens": 10, "window": 8} | wrong
    with pytest.raises(ValueError, match=message):
        next(pretraining_steps(small_policy(), **arguments))

import math

import numpy as np
import pytest
import torch

from agents.supervised import (
    Fitting,
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
    logprobs = policy.outputs(windows, mask).logprobs
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


def test_two_passes_of_a_step_are_one_of_twice_the_windows():
    def weights(batch_size: int, accumulate: int) -> torch.Tensor:
        policy = small_policy()
        windows = iter(np.random.default_rng(0).integers(0, VOCAB, (4, 9)))
        fitting = Fitting(policy, steps=1, learning_rate=0.1)
        parts = [np.stack([next(windows) for _ in range(batch_size)]) for _ in range(accumulate)]
        fitting.step(next_token_loss(policy, part) for part in parts)
        return policy.transformer.token_embedding.weight.detach()

    torch.testing.assert_close(weights(2, 2), weights(4, 1), atol=1e-5, rtol=0)


def test_a_run_that_was_saved_goes_on_bit_for_bit(tmp_path):
    def run(policy, fitting, until: int) -> None:
        for step in pretraining_steps(
            policy, forks(500, 0), total_tokens=10 * 128, window=8, seed=3, fitting=fitting
        ):
            if step.number == until:
                return

    whole = small_policy()
    run(whole, Fitting(whole, steps=10, learning_rate=0.01), until=10)
    first = small_policy()
    fitting = Fitting(first, steps=10, learning_rate=0.01)
    run(first, fitting, until=4)
    fitting.save(tmp_path)
    second = small_policy(seed=5)
    second.load_state_dict(first.state_dict())
    resumed = Fitting(second, steps=10, learning_rate=0.01)
    resumed.load(tmp_path)
    run(second, resumed, until=10)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, second.state_dict()[name]), name


def test_held_out_loss_over_all_windows_is_the_mean_of_theirs():
    policy, stream = small_policy(), forks(41, 0)
    by_hand = [next_token_loss(policy, stream[i : i + 9][None]).item() for i in range(0, 40, 8)]
    measured = held_out_loss(policy, stream, window=8, windows=5, batch_size=2)
    assert measured == pytest.approx(np.mean(by_hand), abs=1e-6)


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

"""float16 with a loss scale learns, survives an overflow, and is saved."""

import numpy as np
import pytest
import torch
from toys import letters_env

from agents import PPO, Learner
from agents.optimisation.precision import Precision
from agents.supervised import Fitting, next_token_loss
from policies import TransformerConfig, TransformerPolicy


def small_policy() -> TransformerPolicy:
    return TransformerPolicy(TransformerConfig(5, 16, 1, 2, 16))


def test_gradients_too_small_for_float16_survive():
    weight = torch.nn.Parameter(torch.ones(1))
    precision = Precision(torch.float16, "cpu")
    optimizer = torch.optim.SGD([weight], lr=1.0)
    tiny = 1e-7  # rounds to 0 or to a coarse subnormal in float16
    precision.backward((weight.half() * 1.0).float().sum() * tiny)
    norm = precision.step(optimizer, [weight], max_norm=1.0)
    assert norm.item() == pytest.approx(tiny, rel=1e-3)
    assert weight.item() < 1.0


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    weight = torch.nn.Parameter(torch.ones(1))
    precision = Precision(torch.float16, "cpu")
    before = precision.scaler.get_scale()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision.backward(weight.sum() * torch.inf)
    precision.step(optimizer, [weight], max_norm=1.0)
    assert weight.item() == 1.0
    assert precision.scaler.get_scale() == before / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_fits_nearly_as_well(dtype):
    windows = (np.arange(9)[None] + np.arange(8)[:, None]) % 4

    def loss_after(precision: torch.dtype) -> float:
        policy = small_policy()
        fitting = Fitting(policy, steps=60, learning_rate=1e-2, precision=precision)
        for _ in range(60):
            step = fitting.step(next_token_loss(policy, windows) for _ in range(1))
        return step.loss

    assert loss_after(dtype) == pytest.approx(loss_after(torch.float32), abs=0.05)


def test_a_learner_in_float16_is_saved_with_its_scale(tmp_path):
    def learner() -> Learner:
        return Learner(
            small_policy(), letters_env(4), PPO(), n_steps=4, precision=torch.float16, seed=0
        )

    one = learner()
    one.update()
    one.precision.scaler.update(128.0)
    assert np.isfinite(one.update().metrics["loss"])
    one.save(tmp_path)
    other = learner()
    other.load(tmp_path)
    assert other.precision.state_dict() == one.precision.state_dict()
    assert other.update().metrics["loss"] == one.update().metrics["loss"]

"""Corrections by hand and by enumeration: which fixed points are the best policy."""

import math

import pytest
import torch

from agents import RLOO, Learner, losses
from agents.optimisation.corrections import (
    Corrected,
    Masked,
    Truncated,
    by_geometric_mean,
    by_sequence,
    by_token,
)
from benchmarks import corrections
from benchmarks.corrections import CORRECTIONS, MISMATCHES, Way, expected_update, fixed_point
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import OptionError, UnmetNeedError
from textenv.testing import exact

torch.set_num_threads(1)
LOGPROBS = torch.tensor([[0.0, -1.0, -2.0], [-1.0, -3.0, float("nan")]])
SAMPLED = torch.tensor([[0.0, -2.0, -2.5], [-1.5, -1.0, float("nan")]])
MASK = torch.tensor([[False, True, True], [True, True, False]])
# Log-ratios: 1 and 0.5 in the first answer, 0.5 and -2 in the second.


@pytest.mark.parametrize(
    ("correction", "logs"),
    [
        (Truncated(math.inf), [[0, 1, 0.5], [0.5, -2, 0]]),
        (Truncated(math.e**0.6), [[0, 0.6, 0.5], [0.5, -2, 0]]),
        (Truncated(math.inf, by_sequence), [[0, 1.5, 1.5], [-1.5, -1.5, 0]]),
        (Truncated(math.e, by_sequence), [[0, 1, 1], [-1.5, -1.5, 0]]),
        (Truncated(9.0, by_geometric_mean), [[0, 0.75, 0.75], [-0.75, -0.75, 0]]),
        (Truncated(math.exp(-1.0)), [[0, -1, -1], [-1, -2, 0]]),  # 1 outside the mask, still
        (Masked(0.5, 2.0), [[0, -math.inf, 0.5], [0.5, -math.inf, 0]]),
        (Masked(0.1, 4.0, by_sequence), [[0, -math.inf, -math.inf], [-1.5, -1.5, 0]]),
        (Masked(0.5, 5.0, by_geometric_mean), [[0, 0.75, 0.75], [-math.inf, -math.inf, 0]]),
    ],
    ids=repr,
)
def test_by_hand(correction, logs):
    found = correction.weights(LOGPROBS.clone().requires_grad_(), SAMPLED, MASK)
    torch.testing.assert_close(found, torch.tensor(logs).float().exp())
    assert not found.requires_grad


def test_large_ratios_stay_finite():
    far = torch.full((1, 400), -1.0), torch.full((1, 400), -30.0), torch.ones(1, 400).bool()
    for level in (by_token, by_sequence, by_geometric_mean):
        assert Truncated(math.inf, level).weights(*far).isfinite().all()
        assert Masked(0.5, 5.0, level).weights(*far).eq(0).all()


def test_bounds_are_refused():
    with pytest.raises(OptionError):
        Truncated(0.0)
    with pytest.raises(OptionError):
        Masked(-1.0)
    with pytest.raises(OptionError, match="every token would weigh nothing"):
        Masked(5.0, 0.5)


def test_the_cap_of_a_learner_is_the_truncation_by_token():
    """Far ratios, too, where an exponential would overflow."""
    far = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-120.0, -30.0]]), torch.ones(1, 2).bool()
    for cap in (0.5, 2.0, math.inf):
        due = losses.truncated_ratios(*far, cap)
        assert torch.equal(Truncated(cap).weights(*far), due)


def best():
    return exact.optimum(
        corrections.REF_LOGPROBS.sum(1).numpy(), corrections.ANSWERS.rewards, corrections.BETA
    )


def distance(table, other):
    return exact.total_variation(corrections.answers(table), other)


def test_the_answers_ratio_gives_the_exact_gradient():
    """Whatever samples: by `exact.gradient_weights`, a formula of its own."""
    table = (corrections.REFERENCE * 0.8).requires_grad_()
    logprobs = corrections.token_logprobs(table).sum(1)
    weights = exact.gradient_weights(
        logprobs.detach(),
        corrections.ANSWERS.rewards,
        corrections.REF_LOGPROBS.sum(1),
        corrections.BETA,
    )
    due = torch.autograd.grad((torch.from_numpy(weights) * logprobs).sum(), table)[0]
    for sampler in MISMATCHES.values():
        way = Way(sampler, CORRECTIONS["answer's ratio (exact)"])
        torch.testing.assert_close(expected_update(table.detach(), way), due)
        plain = expected_update(table.detach(), Way(sampler, CORRECTIONS["none"]))
        assert (plain - due).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "in_loss", "due"),
    [
        ("none", False, 0.0),
        ("answer's ratio (exact)", True, 0.0),
        ("none", True, 0.0258),
        ("token, cap 2 (TIS)", True, 0.0013),
        ("geometric mean, cap 2", True, 0.0131),
    ],
)
def test_where_they_end_at_temperature_0_8(name, in_loss, due):
    """At the best policy all advantages are equal, so weights that never vanish leave it alone."""
    way = Way(MISMATCHES["temperature 0.8"], CORRECTIONS[name], in_loss=in_loss)
    point, left = fixed_point(way)
    assert left < 1e-9
    assert distance(point, best()) == pytest.approx(due, abs=1e-4)
    run = corrections.sampled_run(way, updates=60, seed=0)
    assert distance(run, corrections.answers(point)) < 0.05


def test_the_samplers_penalty_moves_the_sampler_to_the_optimum():
    way = Way(MISMATCHES["noise 0.06"], CORRECTIONS["token, cap 2 (TIS)"], anew=False)
    point, _ = fixed_point(way)
    assert distance(way.sampler(point), best()) < 1e-6
    assert distance(point, best()) > 0.003


def test_a_learner_with_a_correction():
    envs = TextVectorEnv(
        8,
        prompts=["a"],
        reward=lambda es: [float(len(set(e.text))) for e in es],
        max_new_tokens=4,
        group_size=4,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    correction = Masked(0.9999, 1.0001, by_sequence)
    options = {"n_episodes": 8, "annotate": Corrected(correction), "precision": "bfloat16"}
    rollout = Learner(policy, envs, RLOO(), importance_cap=math.inf, **options).update().rollout
    due = correction.weights(rollout.logprobs, rollout.sampled_logprobs, rollout.mask)
    torch.testing.assert_close(rollout.importance_weights, due)
    assert (due == 0).any()
    with pytest.raises(UnmetNeedError, match=r"importance_cap=math\.inf"):
        Learner(policy, envs, RLOO(), **options).update()

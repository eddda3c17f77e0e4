import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import losses

NAN = float("nan")
MASK = torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
unhurried = settings(deadline=None)  # a first call of torch takes a second
torch.set_num_threads(1)


def spread(*chosen):
    """A (3, 4) tensor with the four `chosen` values where MASK is True and NaN elsewhere."""
    result = torch.full((3, 4), NAN, dtype=torch.float64)
    result[MASK] = torch.tensor(chosen, dtype=torch.float64)
    return result


def gradient(loss, x):
    return torch.autograd.grad(loss, x)[0]


# --- means ----------------------------------------------------------------------------------------


def test_means_by_hand():
    x = spread(1.0, 2.0, 3.0, 10.0)
    assert losses.masked_mean(x, MASK).item() == 4.0  # 16 / 4
    assert losses.sequence_mean(x, MASK).item() == 6.0  # (2 + 10) / 2; the empty row is no row
    assert losses.sequence_sum(x, MASK).item() == 8.0  # (6 + 10) / 2


@pytest.mark.parametrize("mean", [losses.masked_mean, losses.sequence_mean, losses.sequence_sum])
def test_a_mean_over_nothing_is_0_with_gradient_0(mean):
    x = torch.full((2, 3), NAN, requires_grad=True)
    result = mean(x, torch.zeros(2, 3).bool())
    assert result.item() == 0.0
    assert torch.equal(gradient(result, x), torch.zeros(2, 3))


# --- policy gradient ------------------------------------------------------------------------------


def test_policy_gradient_by_hand():
    logprobs = spread(-1.0, -2.0, -3.0, -4.0).requires_grad_()
    advantages = spread(1.0, 0.5, -1.0, 2.0)
    loss = losses.policy_gradient(logprobs, advantages, MASK)
    assert loss.item() == 1.75  # -(-1 - 1 + 3 - 8) / 4
    expected = torch.zeros(3, 4).double()
    expected[MASK] = -advantages[MASK] / 4
    assert torch.equal(gradient(loss, logprobs), expected)


def test_one_advantage_a_sequence_is_spread_over_its_tokens():
    logprobs, old = spread(-1.0, -2.0, -3.0, -4.0), spread(-1.5, -2.0, -2.5, -4.0)
    per_sequence = torch.tensor([2.0, -3.0, NAN]).double()
    per_token = spread(2.0, 2.0, 2.0, -3.0)
    assert losses.policy_gradient(logprobs, per_sequence, MASK).item() == 0.0  # -(-12 + 12) / 4
    assert torch.equal(
        losses.ppo_clip(logprobs, old, per_sequence, MASK, 0.2, 0.2),
        losses.ppo_clip(logprobs, old, per_token, MASK, 0.2, 0.2),
    )


def test_policy_gradient_is_unbiased():
    """The expected gradient of the loss is minus the gradient of the expected reward."""
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(5, dtype=torch.float64)
    policy = logits.softmax(0)
    exact = gradient(policy @ rewards, logits)
    expected = torch.zeros_like(exact)
    for token in range(5):
        logprob = logits.log_softmax(0)[token].view(1, 1)
        loss = losses.policy_gradient(logprob, rewards[token].view(1), torch.ones(1, 1).bool())
        expected += policy[token].detach() * gradient(loss, logits)
    torch.testing.assert_close(expected, -exact)


# --- PPO ------------------------------------------------------------------------------------------


def test_ppo_clip_by_hand():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5]).double()
    old = spread(-1.0, -2.0, -1.0, -3.0)
    logprobs = old + spread(*ratios.log())
    advantages = spread(1.0, -1.0, 1.0, -1.0)
    surrogate = losses.clipped_surrogate(logprobs, old, advantages, MASK, 0.2, 0.3)
    # Clipped above at 1.3; a worse choice made likelier is not; nor a better one made unlikelier;
    # clipped below at 0.8.
    expected = torch.where(MASK, spread(1.3, -1.5, 0.5, -0.8), 0.0)
    torch.testing.assert_close(surrogate, expected)
    loss = losses.ppo_clip(logprobs, old, advantages, MASK, 0.2, 0.3)
    assert loss.item() == pytest.approx(0.125)  # -(1.3 - 1.5 + 0.5 - 0.8) / 4


def test_ppo_gradient_is_0_exactly_where_the_clip_binds():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5]).double()
    old = spread(-1.0, -2.0, -1.0, -3.0)
    logprobs = (old + spread(*ratios.log())).requires_grad_()
    advantages = spread(1.0, -1.0, 1.0, -1.0)
    result = gradient(losses.ppo_clip(logprobs, old, advantages, MASK, 0.2, 0.3), logprobs)
    # d ratio / d logprob = ratio, so -(A * ratio) / 4 where not clipped.
    torch.testing.assert_close(result[MASK], torch.tensor([0.0, 1.5, -0.5, 0.0]).double() / 4)
    assert not result[~MASK].any()


def test_ppo_gradient_at_ratio_1_is_the_policy_gradient():
    logprobs = spread(-1.0, -2.0, -3.0, -4.0).requires_grad_()
    advantages = spread(1.0, 0.5, -1.0, 2.0)
    clipped = losses.ppo_clip(logprobs, logprobs.detach(), advantages, MASK, 0.2, 0.2)
    plain = losses.policy_gradient(logprobs, advantages, MASK)
    torch.testing.assert_close(gradient(clipped, logprobs), gradient(plain, logprobs))


@unhurried
@given(seed=st.integers(0, 10**6), clip=st.floats(0.05, 0.5))
def test_ppo_as_stable_baselines3_writes_it(seed, clip):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 6, generator=generator) < 0.7
    mask[0, 0] = True
    logprobs, old, advantages = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    # stable_baselines3/ppo/ppo.py, on the chosen tokens alone
    ratio = torch.exp(logprobs[mask] - old[mask])
    policy_loss_1 = advantages[mask] * ratio
    policy_loss_2 = advantages[mask] * torch.clamp(ratio, 1 - clip, 1 + clip)
    expected_loss = -torch.min(policy_loss_1, policy_loss_2).mean()
    expected_fraction = torch.mean((torch.abs(ratio - 1) > clip).double())

    logprobs, old, advantages = (torch.where(mask, x, NAN) for x in (logprobs, old, advantages))
    loss = losses.ppo_clip(logprobs, old, advantages, mask, clip, clip)
    torch.testing.assert_close(loss, expected_loss)
    fraction = losses.clip_fraction(logprobs, old, mask, clip, clip)
    torch.testing.assert_close(fraction, expected_fraction)


def test_clip_fraction_counts_both_sides_with_their_own_limits():
    logprobs = spread(*np.log([1.25, 1.35, 0.75, 0.85]))
    old = spread(0.0, 0.0, 0.0, 0.0)
    assert losses.clip_fraction(logprobs, old, MASK, 0.2, 0.3).item() == 0.5  # 1.35 and 0.75
    assert losses.clip_fraction(logprobs, old, MASK, 0.2, 0.2).item() == 0.75
    assert losses.clip_fraction(logprobs, old, MASK & False, 0.2, 0.2).item() == 0.0


# --- values ---------------------------------------------------------------------------------------


def test_value_loss_by_hand():
    values = spread(1.0, 2.0, 3.0, 4.0).requires_grad_()
    targets = spread(2.0, 2.0, 0.0, 2.0)
    loss = losses.value_loss(values, targets, MASK)
    assert loss.item() == 1.75  # 0.5 * (1 + 0 + 9 + 4) / 4
    assert gradient(loss, values)[MASK].tolist() == [-0.25, 0.0, 0.75, 0.5]  # error / 4


def test_clipped_value_loss_by_hand():
    old = spread(0.0, 0.0, 0.0, 0.0)
    values = spread(2.0, 2.0, 0.5, -3.0).requires_grad_()
    targets = spread(3.0, 0.0, 1.0, -2.0)
    # Clipped values 1, 1, 0.5, -1; worst errors: 1 - 3 = -2, 2 - 0 = 2, -0.5, and -1 or 1 alike.
    loss = losses.clipped_value_loss(values, old, targets, MASK, 1.0)
    assert loss.item() == pytest.approx(0.5 * (4 + 4 + 0.25 + 1) / 4)
    # Far enough towards the target: no pull. Away from it: the full pull.
    assert gradient(loss, values)[MASK].tolist()[:3] == [0.0, 0.5, -0.125]


def test_clipped_value_loss_with_room_is_the_value_loss():
    values, old, targets = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        losses.clipped_value_loss(values, old, targets, MASK, 1e6),
        losses.value_loss(values, targets, MASK),
    )


def test_explained_variance():
    targets = spread(1.0, 2.0, 3.0, 6.0)  # variance (4 + 1 + 0 + 9) / 4 = 3.5
    assert losses.explained_variance(targets, targets, MASK).item() == 1.0
    assert losses.explained_variance(spread(5.0, 5.0, 5.0, 5.0), targets, MASK).item() == 0.0
    off = spread(0.0, 2.0, 2.0, 6.0)  # errors 1, 0, 1, 0: variance 0.25
    assert losses.explained_variance(off, targets, MASK).item() == pytest.approx(1 - 0.25 / 3.5)
    constant = spread(0.1, 0.1, 0.1, 0.1).float()
    assert losses.explained_variance(off.float(), constant, MASK).item() == 0.0
    assert losses.explained_variance(off, targets, MASK & False).item() == 0.0


# --- KL estimators --------------------------------------------------------------------------------


@pytest.fixture
def five_tokens():
    """The logits of a policy over five tokens and the log-probabilities of its reference."""
    generator = torch.Generator().manual_seed(3)
    logits, ref_logits = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), ref_logits.log_softmax(0)


def exact_kl(p_log, q_log):
    return (p_log.exp() * (p_log - q_log)).sum()


def test_kl_estimators_by_hand():
    logprobs, ref = spread(-1.0, -1.0, -2.0, -3.0), spread(-2.0, -1.0, -1.0, -1.0)
    # Differences 1, 0, -1, -2.
    assert losses.kl_k1(logprobs, ref, MASK)[MASK].tolist() == [1.0, 0.0, -1.0, -2.0]
    assert losses.kl_k2(logprobs, ref, MASK)[MASK].tolist() == [0.5, 0.0, 0.5, 2.0]
    expected = torch.tensor([1 / math.e, 0.0, math.e - 2, math.e**2 - 3]).double()
    torch.testing.assert_close(losses.kl_k3(logprobs, ref, MASK)[MASK], expected)


@pytest.mark.parametrize("estimator", [losses.kl_k1, losses.kl_k3])
def test_k1_and_k3_are_unbiased(estimator, five_tokens):
    logits, ref = five_tokens
    logprobs = logits.log_softmax(0).detach()
    mean = (logprobs.exp() * estimator(logprobs, ref, torch.ones(5).bool())).sum()
    exact = exact_kl(logprobs, ref)
    assert exact > 0.1
    torch.testing.assert_close(mean, exact)
    # Not by symmetry: the other direction is another number.
    assert abs(mean - exact_kl(ref, logprobs)) > 0.01


def test_k2_is_close_where_the_policies_are(five_tokens):
    _, ref = five_tokens
    logprobs = (ref + 0.02 * torch.arange(5.0)).log_softmax(0)
    mean = (logprobs.exp() * losses.kl_k2(logprobs, ref, torch.ones(5).bool())).sum()
    torch.testing.assert_close(mean, exact_kl(logprobs, ref), rtol=0.02, atol=0)


def expected_gradient(estimator, logits, ref):
    """The mean gradient of `estimator` as a loss, over tokens drawn from the policy."""
    logprobs = logits.log_softmax(0)
    estimates = estimator(logprobs, ref, torch.ones(5).bool())
    return gradient((logprobs.exp().detach() * estimates).sum(), logits)


def test_what_each_estimator_does_as_a_loss(five_tokens):
    logits, ref = five_tokens
    forward = gradient(exact_kl(logits.log_softmax(0), ref), logits)
    reverse = gradient(exact_kl(ref, logits.log_softmax(0)), logits)
    nothing = torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(expected_gradient(losses.kl_k1, logits, ref), nothing)
    torch.testing.assert_close(expected_gradient(losses.kl_k2, logits, ref), forward)
    torch.testing.assert_close(expected_gradient(losses.kl_k3, logits, ref), reverse)


@unhurried
@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k2_and_k3_are_never_negative(logprob, ref_logprob):
    pair = torch.tensor([logprob]), torch.tensor([ref_logprob])
    assert losses.kl_k2(*pair, torch.ones(1).bool()) >= 0
    assert losses.kl_k3(*pair, torch.ones(1).bool()) >= -1e-9  # a rounding error of expm1


@pytest.mark.parametrize(
    "function",
    [
        losses.kl_k3,
        losses.kl_from_old,
        lambda x, y, mask: losses.surrogate(x, y, -torch.ones_like(x), mask),
        lambda x, y, mask: losses.clipped_surrogate(x, y, -torch.ones_like(x), mask, 0.2, 0.2),
    ],
    ids=["kl_k3", "kl_from_old", "surrogate", "clipped_surrogate"],
)
def test_policies_that_are_far_apart_have_finite_numbers(function):
    """Up to 20 nats the exponential itself, beyond them its tangent: it never goes flat."""
    for nats in (100.0, 1e4):
        for sign in (1, -1):
            x = torch.full((1, 1), sign * nats, requires_grad=True)
            value = function(x, torch.zeros(1, 1), torch.ones(1, 1).bool())
            grad = gradient(value.sum(), x)
            assert value.isfinite().all() and grad.isfinite().all()
            assert grad.square().isfinite().all()  # the norm of a gradient has squares
    # On the side that overflowed, the gradient of e^20 leads back.
    side = -1 if function is losses.kl_k3 else 1
    x = torch.full((1, 1), side * 100.0, requires_grad=True)
    value = function(x, torch.zeros(1, 1), torch.ones(1, 1).bool())
    assert gradient(value.sum(), x).abs().item() == pytest.approx(math.exp(20), rel=1e-5)
    assert abs(value.item()) == pytest.approx(81 * math.exp(20), rel=1e-5)


@pytest.mark.parametrize("nats", [-19.9, -3.0, 0.0, 0.5, 19.9])
def test_policies_that_are_near_have_the_plain_exponential(nats):
    x = torch.tensor([[nats]], dtype=torch.float64, requires_grad=True)
    zero, mask = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1).bool()
    ratio = losses.surrogate(x, zero, torch.ones(1, 1), mask)
    assert ratio.item() == pytest.approx(math.exp(nats))
    assert gradient(ratio.sum(), x).item() == pytest.approx(math.exp(nats))
    assert losses.kl_k3(zero, x, mask).item() == pytest.approx(math.exp(nats) - 1 - nats)
    assert losses.kl_from_old(x, zero, mask).item() == pytest.approx(math.exp(nats) - 1 - nats)


def test_constants_in_float64_leave_a_loss_in_the_dtype_of_the_policy():
    """Targets near 1e8 that differ by 1: the error is taken before it is rounded."""
    mask = torch.ones(1, 2).bool()
    targets = torch.tensor([[1e8, 1e8 + 1]], dtype=torch.float64)
    values = torch.full((1, 2), 1e8, requires_grad=True)
    loss = losses.value_loss(values, targets, mask)
    assert loss.dtype == torch.float32 and loss.item() == 0.25
    assert losses.policy_gradient(values, targets, mask).dtype == torch.float32
    clipped = losses.clipped_value_loss(values, values.detach(), targets, mask, 0.2)
    assert clipped.dtype == torch.float32


@pytest.mark.parametrize("estimator", [losses.kl_k1, losses.kl_k2, losses.kl_k3])
def test_kl_of_equal_policies_is_exactly_0(estimator):
    logprobs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert not estimator(logprobs, logprobs.clone(), MASK).any()


# --- what lies outside the mask -------------------------------------------------------------------

# Every loss as a function of (trained, constant, other constant).
LOSSES = {
    "masked_mean": lambda x, y, z: losses.masked_mean(x, MASK),
    "sequence_mean": lambda x, y, z: losses.sequence_mean(x, MASK),
    "sequence_sum": lambda x, y, z: losses.sequence_sum(x, MASK),
    "policy_gradient": lambda x, y, z: losses.policy_gradient(x, y, MASK),
    "ppo_clip": lambda x, y, z: losses.ppo_clip(x, y, z, MASK, 0.2, 0.2),
    "value_loss": lambda x, y, z: losses.value_loss(x, y, MASK),
    "clipped_value_loss": lambda x, y, z: losses.clipped_value_loss(x, y, z, MASK, 0.2),
    "kl_k1": lambda x, y, z: losses.kl_k1(x, y, MASK).sum(),
    "kl_k2": lambda x, y, z: losses.kl_k2(x, y, MASK).sum(),
    "kl_k3": lambda x, y, z: losses.kl_k3(x, y, MASK).sum(),
    "kl_from_old": lambda x, y, z: losses.kl_from_old(x, y, MASK).sum(),
}


@pytest.mark.parametrize("filler", [NAN, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_outside_the_mask_reaches_a_loss_or_its_gradient(name, filler):
    generator = torch.Generator().manual_seed(1)
    clean = list(torch.randn(3, 3, 4, generator=generator))
    results = []
    for outside in (0.0, filler):
        x, y, z = (torch.where(MASK, tensor, outside) for tensor in clean)
        x.requires_grad_()
        loss = LOSSES[name](x, y, z)
        results.append((loss.detach(), gradient(loss, x)))
    (loss, grad), (filled_loss, filled_grad) = results
    assert torch.equal(loss, filled_loss)
    assert torch.equal(grad, filled_grad)
    assert grad[MASK].any()
    assert not grad[~MASK].any()


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name.split("_")[-1] not in ("mean", "sum")]
)
def test_only_the_policy_or_the_values_are_trained(name):
    x, y, z = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(2)).unbind()
    for tensor in (x, y, z):
        tensor.requires_grad_()
    LOSSES[name](x, y, z).backward()
    assert x.grad is not None
    assert y.grad is None
    assert z.grad is None


def test_wrong_shapes_are_named():
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"advantages has shape \(4,\), but mask has \(3, 4\)"):
        losses.policy_gradient(x, torch.zeros(4), MASK)
    with pytest.raises(ValueError, match=r"old_logprobs has shape \(3, 3\), but mask has \(3, 4\)"):
        losses.ppo_clip(x, torch.zeros(3, 3), x, MASK, 0.2, 0.2)
    with pytest.raises(ValueError, match=r"ref_logprobs has shape \(4,\)"):
        losses.kl_k3(x, torch.zeros(4), MASK)
    with pytest.raises(ValueError, match=r"bool tensor, got torch.int64"):
        losses.value_loss(x, x, MASK.long())
    with pytest.raises(ValueError, match=r"\(sequences, tokens\), got shape \(4,\)"):
        losses.sequence_mean(x[0], MASK[0])

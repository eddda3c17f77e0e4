from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F
from toys import letters_env

from agents import PPO, Learner, Rollout, losses, returns
from agents.collector import Collector
from policies import PolicyOutputs, TransformerPolicy

torch.set_num_threads(1)
NAN = float("nan")


def strong_policy(envs, seed=0):
    """A policy far from uniform, whose values are no longer zero."""
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=16, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def batch_of(**arrays):
    """A rollout of one sequence: a prompt token, then what `arrays` say of each chosen one."""
    n = len(arrays["logprobs"])
    names = ("logprobs", "values", "rewards", "advantages", "value_targets")
    arrays = {name: arrays.get(name, [0.0] * n) for name in names}
    return Rollout(
        tokens=torch.zeros(1, n + 1, dtype=torch.int64),
        mask=torch.tensor([[False] + [True] * n]),
        bootstrap_values=torch.zeros(1),
        terminated=torch.ones(1).bool(),
        truncated=torch.zeros(1).bool(),
        scores=torch.zeros(1),
        groups=torch.zeros(1, dtype=torch.int64),
        **{name: torch.tensor([[NAN, *values]]) for name, values in arrays.items()},
    )


def scores_of(logprobs, values, entropies):
    return PolicyOutputs(*(torch.tensor([[NAN, *x]]) for x in (logprobs, values, entropies)))


# --- PPO's loss -----------------------------------------------------------------------------------


def hand_made():
    ratios = torch.tensor([1.5, 0.5, 1.0])
    batch = batch_of(
        logprobs=[-1.0, -2.0, -3.0],
        advantages=[3.0, 1.0, 2.0],  # standardised: 1, -1, 0 times the root of 3/2
        values=[0.9, 2.0, 2.5],
        value_targets=[0.0, 2.0, 5.0],
    )
    logprobs = (torch.tensor([-1.0, -2.0, -3.0]) + ratios.log()).tolist()
    return batch, scores_of(logprobs, values=[1.0, 2.0, 3.0], entropies=[1.0, 2.0, 3.0])


# min(1.5, 1.2) for the first, min(-0.5, -0.8) for the second, nothing for the third.
POLICY_LOSS = -(1.2 - 0.8) * 1.5**0.5 / 3


def test_ppo_by_hand():
    batch, scores = hand_made()
    loss, metrics = PPO(clip=0.2, value_coef=0.5, entropy_coef=0.1).loss(batch, scores)
    value_loss = 0.5 * (1 + 0 + 4) / 3
    assert metrics["policy_loss"].item() == pytest.approx(POLICY_LOSS, rel=1e-5)
    assert metrics["value_loss"].item() == pytest.approx(value_loss, rel=1e-5)
    assert metrics["clip_fraction"].item() == pytest.approx(2 / 3)
    assert loss.item() == pytest.approx(POLICY_LOSS + 0.5 * value_loss - 0.1 * 2, rel=1e-5)


def test_ppo_with_clipped_values_by_hand():
    batch, scores = hand_made()
    _, metrics = PPO(value_clip=0.25).loss(batch, scores)
    # The first value moved by 0.1, which is allowed. The third moved by 0.5, of which 0.25 count,
    # and the larger error is taken: (2.75 - 5)^2.
    assert metrics["value_loss"].item() == pytest.approx(0.5 * (1 + 0 + 2.25**2) / 3, rel=1e-5)


def sb3_loss(batch, outputs, clip, value_coef, entropy_coef):
    """The lines of `PPO.train` in Stable-Baselines3 2.x, on the flat chosen tokens.

    But for its standard deviation, which divides by n - 1.
    """
    advantages, old_log_prob, log_prob, values, returns_, entropy = (
        x[batch.mask]
        for x in (
            batch.advantages,
            batch.logprobs,
            outputs.logprobs,
            outputs.values,
            batch.value_targets,
            outputs.entropies,
        )
    )
    std = advantages.std(correction=0)
    advantages = (advantages - advantages.mean()) / (std + 1e-8)
    ratio = torch.exp(log_prob - old_log_prob)
    policy_loss_1 = advantages * ratio
    policy_loss_2 = advantages * torch.clamp(ratio, 1 - clip, 1 + clip)
    policy_loss = -torch.min(policy_loss_1, policy_loss_2).mean()
    clip_fraction = torch.mean((torch.abs(ratio - 1) > clip).float())
    value_loss = F.mse_loss(returns_, values)
    entropy_loss = -torch.mean(entropy)
    loss = policy_loss + entropy_coef * entropy_loss + value_coef * value_loss
    return loss, clip_fraction


def test_ppo_equals_stable_baselines3():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    mask = random(6, 9) > 0
    tokens = torch.zeros(6, 9, dtype=torch.int64)
    old = random(6, 9)
    batch = replace(
        batch_of(logprobs=[0.0]),
        tokens=tokens,
        mask=mask,
        logprobs=old,
        advantages=random(6, 9),
        value_targets=random(6, 9),
    )
    ours, theirs = (
        PolicyOutputs(*(x.clone().requires_grad_() for x in (old + 0.3 * noise, *rest)))
        for noise, *rest in [[random(6, 9), random(6, 9), random(6, 9)]]
        for _ in range(2)
    )
    # Their value loss lacks our half.
    algorithm = PPO(clip=0.15, value_coef=0.8, entropy_coef=0.02)
    loss, metrics = algorithm.loss(batch, ours)
    expected, clip_fraction = sb3_loss(batch, theirs, 0.15, 0.4, 0.02)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert 0 < metrics["clip_fraction"].item() == pytest.approx(clip_fraction.item())
    loss.backward()
    expected.backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, atol=1e-7, rtol=1e-5)


def test_advantages_are_gae_and_targets_are_returns():
    batch = batch_of(logprobs=[0.0] * 3, values=[1.0, 2.0, 3.0], rewards=[0.0, 1.0, 5.0])
    algorithm = PPO(gamma=1.0, gae_lambda=1.0)
    advantages = algorithm.advantages(batch)
    assert advantages.tolist() == [[0.0, 5.0, 4.0, 2.0]]  # 6 - 1, 6 - 2, 5 - 3
    assert algorithm.value_targets(batch, advantages).tolist() == [[0.0, 6.0, 6.0, 5.0]]
    one_step = PPO(gamma=0.5, gae_lambda=0.0).advantages(batch)
    assert one_step.tolist() == [[0.0, 0.0, 0.5, 2.0]]  # 0 + 1 - 1, 1 + 1.5 - 2, 5 - 3


def test_what_stands_outside_the_mask_does_not_matter():
    """NaN in every masked slot leaves the loss and its gradients as they were."""
    batch, scores = hand_made()
    clean_batch = replace(
        batch,
        **{
            name: getattr(batch, name).nan_to_num(0.0)
            for name in ("logprobs", "values", "rewards", "advantages", "value_targets")
        },
    )
    gradients = []
    for some_batch, some_scores in (
        (batch, scores),
        (clean_batch, [x.nan_to_num(0.0) for x in scores]),
    ):
        leaves = PolicyOutputs(*(x.clone().requires_grad_() for x in some_scores))
        PPO(entropy_coef=0.1, value_clip=0.2).loss(some_batch, leaves)[0].backward()
        gradients.append([leaf.grad for leaf in leaves])
    for dirty, clean in zip(*gradients, strict=True):
        assert torch.equal(dirty, clean)
        assert dirty[0, 0] == 0
    assert all(part.abs().max() > 0 for part in gradients[0][1:])  # values, entropies


# --- the ratio ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched(PPO):
    """PPO that writes down every log-ratio it sees."""

    log_ratios: ClassVar[list[torch.Tensor]] = []

    def loss(self, batch, outputs):
        self.log_ratios.append((outputs.logprobs - batch.logprobs)[batch.mask].detach())
        return super().loss(batch, outputs)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("length", [{"n_steps": 7}, {"n_episodes": 12}])
@pytest.mark.parametrize("masks", [{}, {"min_new_tokens": 3, "forbidden_tokens": [1]}])
def test_the_ratio_is_1_at_learning_rate_0(temperature, length, masks):
    envs = letters_env(8, 6, prompts=["a", "bcd", "ddabc"], max_new_tokens=9, **masks)
    policy = strong_policy(envs)
    algorithm = Watched(n_epochs=3, minibatch_tokens=16)
    algorithm.log_ratios.clear()
    learner = Learner(policy, envs, algorithm, learning_rate=0.0, temperature=temperature, **length)
    updates = [learner.update() for _ in range(3)]
    assert len(algorithm.log_ratios) >= 3 * 3 * 2  # minibatches of three epochs of three rollouts
    assert max(x.abs().max() for x in algorithm.log_ratios) < 1e-4
    counted = sum(len(x) for x in algorithm.log_ratios)
    assert counted == 3 * updates[-1].tokens
    for update in updates:
        assert update.metrics["clip_fraction"] == 0
        assert update.metrics["approx_kl"] == pytest.approx(0, abs=1e-6)


# --- the gradient ---------------------------------------------------------------------------------


def gradient(policy, loss):
    policy.zero_grad()
    loss.backward()
    parts = [p.grad for p in policy.transformer.parameters() if p.grad is not None]
    return torch.cat([part.flatten() for part in parts])


def test_the_first_gradient_is_the_policy_gradient():
    envs = letters_env(8, 6, prompts=["a", "bcd"], max_new_tokens=9)
    policy = strong_policy(envs)
    rollout = Collector(policy, envs, seed=0).collect_steps(12)
    algorithm = PPO(value_coef=0.0)
    advantages = algorithm.advantages(rollout)
    batch = replace(rollout, advantages=advantages, value_targets=torch.zeros_like(advantages))
    outputs = policy.outputs(rollout.tokens, rollout.mask)
    ppo = gradient(policy, algorithm.loss(batch, outputs)[0])
    outputs = policy.outputs(rollout.tokens, rollout.mask)
    weights = returns.standardise(advantages, rollout.mask)
    plain = gradient(policy, losses.policy_gradient(outputs.logprobs, weights, rollout.mask))
    assert plain.norm() > 0.01
    assert (ppo - plain).norm() < 1e-4 * plain.norm()


def test_the_gradient_points_where_the_exact_one_does():
    """Every answer of 3 letters out of 3 is enumerated."""

    def score(tokens):
        return [float(t[0] == 2) + 2.0 * float(t[1] == t[2]) + 0.5 * float(t[2]) for t in tokens]

    envs = letters_env(
        64, 3, stop=False, reward=lambda episodes: score([e.tokens.tolist() for e in episodes])
    )
    policy = strong_policy(envs)
    torch.nn.init.zeros_(policy.value_head.weight)
    torch.nn.init.zeros_(policy.value_head.bias)
    answers = list(product(range(3), repeat=3))
    tokens = torch.tensor([[0, *answer] for answer in answers])
    mask = torch.tensor([[False, True, True, True]]).expand_as(tokens)
    probabilities = policy.outputs(tokens, mask).logprobs.sum(1).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    exact = gradient(policy, -(probabilities * torch.tensor(score(answers))).sum())

    rollout = Collector(policy, envs, seed=0).collect_steps(3 * 100)
    algorithm = PPO(value_coef=0.0, gae_lambda=1.0)
    advantages = algorithm.advantages(rollout)
    batch = replace(rollout, advantages=advantages, value_targets=torch.zeros_like(advantages))
    estimate = gradient(policy, algorithm.loss(batch, policy.outputs(batch.tokens, batch.mask))[0])
    assert len(batch) == 6400
    assert torch.cosine_similarity(estimate, exact, dim=0) > 0.98

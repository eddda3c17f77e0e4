"""Tokens that other weights chose than those from which the update begins.

Three policies differ here: BEHAVIOUR chose, PROXIMAL is where the update begins, and POLICY is
where it has come to. Answers of one letter, of which there are three, have one weight each, which
is then that of the whole answer: with it the expected gradient is the exact one.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from letters import Letters
from toys import letters_env

from agents import (
    A2C,
    GRPO,
    PPO,
    REINFORCE,
    RLOO,
    TRPO,
    BestOfN,
    DrGRPO,
    Learner,
    OffPolicyGradient,
    PPOPenalty,
    REINFORCEPlusPlus,
    Rollout,
    Trainer,
    losses,
    returns,
)
from agents.learner import _mean_kl
from policies import TransformerConfig, TransformerPolicy
from textenv import TextEnv
from textenv.testing import exact

torch.set_num_threads(1)
INF = float("inf")
REWARDS = {"": 0.3, "a": -0.5, "b": 1.0, "aa": 0.7, "ab": -1.2, "ba": 0.1, "bb": 0.4}


def score(episodes):
    return [REWARDS[episode.text] for episode in episodes]


def answers_of(letters):
    options = {"prompts": ["a"], "reward": score, "tokenizer": Letters(2, stop=True)}
    return exact.enumerate_answers(TextEnv(**options, max_new_tokens=letters), "a")


def make_policy(seed, scale=0.3):
    """Far from uniform, with values that are not 0."""
    policy = TransformerPolicy(TransformerConfig(3, 3, n_layer=1, n_head=2, n_embd=8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return policy


BEHAVIOUR, PROXIMAL, POLICY = make_policy(1), make_policy(2), make_policy(3)


def rollout_of(answers, rows, groups, cap):
    """What a trainer of PROXIMAL makes of these answers of BEHAVIOUR."""
    rows = torch.as_tensor(rows)
    tokens, mask = torch.from_numpy(answers.tokens)[rows], torch.from_numpy(answers.mask)[rows]
    scores = torch.as_tensor(answers.rewards)[rows]
    log = Rollout.from_log(tokens, mask, scores, torch.as_tensor(groups))
    with torch.no_grad():
        logprobs = BEHAVIOUR.outputs(tokens, mask).logprobs
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    sampled = replace(
        log, logprobs=logprobs, rewards=torch.where(last, scores[:, None].double(), 0.0)
    )
    return Trainer(PROXIMAL, RLOO(), importance_cap=cap).with_proximal(sampled)


def loss_of(algorithm, rollout, policy):
    advantages = algorithm.advantages(rollout)
    targets = algorithm.value_targets(rollout, advantages)
    batch = replace(rollout, advantages=advantages, value_targets=targets)
    loss = algorithm.loss(batch, policy.outputs(batch.tokens, batch.mask))
    return loss[0] if isinstance(loss, tuple) else loss


def flat_gradient(loss, policy):
    parts = [p for name, p in policy.named_parameters() if "value_head" not in name]
    gradients = torch.autograd.grad(loss, parts, allow_unused=True)
    pairs = zip(gradients, parts, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def probabilities(answers, policy):
    tokens, mask = torch.from_numpy(answers.tokens), torch.from_numpy(answers.mask)
    with torch.no_grad():
        return policy.outputs(tokens, mask).logprobs.double().sum(1).exp().numpy()


def expected_gradient(algorithm, answers, cap):
    """At PROXIMAL, over all pairs that BEHAVIOUR may give, each with its probability."""
    q, total = probabilities(answers, BEHAVIOUR), 0.0
    for i in range(len(answers)):
        for j in range(len(answers)):
            rollout = rollout_of(answers, [i, j], [0, 0], cap)
            gradient = flat_gradient(loss_of(algorithm, rollout, PROXIMAL), PROXIMAL)
            total = total + q[i] * q[j] * gradient
    return total


def of_weights(answers, weights, per_token=1.0):
    """The gradient at PROXIMAL of minus the sum of weight * log-probability."""
    tokens, mask = torch.from_numpy(answers.tokens), torch.from_numpy(answers.mask)
    logprobs = PROXIMAL.outputs(tokens, mask).logprobs * per_token
    return flat_gradient(-(torch.as_tensor(weights).float() * logprobs.sum(1)).sum(), PROXIMAL)


# --- the expected gradient ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "multiple"),
    [
        (REINFORCE(value_coef=0.0), 1.0),
        (A2C(value_coef=0.0), 1.0),
        (RLOO(), 1.0),
        (TRPO(), 1.0),
        (OffPolicyGradient(cap=INF), 1.0),
        (DrGRPO(), 1 / 2),  # (n - 1) / n of groups of n = 2
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_gradient_on_tokens_of_other_weights_is_the_exact_one(algorithm, multiple):
    answers = answers_of(1)
    p, q = probabilities(answers, PROXIMAL), probabilities(answers, BEHAVIOUR)
    assert exact.total_variation(np.log(p), np.log(q)) > 0.1
    truth = of_weights(answers, exact.gradient_weights(np.log(p), answers.rewards, np.log(p), 0.0))
    torch.testing.assert_close(
        expected_gradient(algorithm, answers, INF), multiple * truth, atol=2e-6, rtol=1e-4
    )
    assert truth.norm() > 0.05


@pytest.mark.parametrize("cap", [INF, 1.1])
def test_in_longer_answers_each_token_has_its_own_weight(cap):
    """And none of what the docstring says is left out: the probability of reaching it."""
    answers = answers_of(2)
    tokens, mask = torch.from_numpy(answers.tokens), torch.from_numpy(answers.mask)
    with torch.no_grad():
        chosen, sampled = (x.outputs(tokens, mask).logprobs for x in (PROXIMAL, BEHAVIOUR))
    ratios = torch.where(mask, (chosen - sampled).exp().clamp(max=cap), 0.0)
    assert ratios.max() > 1.1 or cap == 1.1
    q = probabilities(answers, BEHAVIOUR)
    expected = of_weights(answers, q * (answers.rewards - q @ answers.rewards), ratios)
    torch.testing.assert_close(
        expected_gradient(RLOO(), answers, cap), expected, atol=2e-6, rtol=1e-4
    )


def test_without_a_weight_the_gradient_is_another():
    """So the tests above can fail."""
    answers = answers_of(1)
    p = probabilities(answers, PROXIMAL)
    truth = of_weights(answers, exact.gradient_weights(np.log(p), answers.rewards, np.log(p), 0.0))
    naive = expected_gradient(RLOO(), answers, 1e-9) * 1e9  # every weight is the cap: all alike
    assert (naive / naive.norm() - truth / truth.norm()).norm() > 0.05


# --- the decoupled objective ----------------------------------------------------------------------


def by_hand(rollout, advantages, cap, clip):
    """Minus the decoupled clipped objective of each token, in float64 from probabilities."""
    tokens, mask = rollout.tokens, rollout.mask
    with torch.no_grad():
        behaviour, proximal, now = (
            x.outputs(tokens, mask).logprobs.double().exp() for x in (BEHAVIOUR, PROXIMAL, POLICY)
        )
    weights = (proximal / behaviour).clamp(max=cap)
    ratios = now / proximal
    terms = torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)
    return torch.where(mask, -weights * terms, 0.0)


@pytest.mark.parametrize("cap", [INF, 1.05])
@pytest.mark.parametrize("clip", [0.05, 0.2])
def test_the_clip_is_around_the_proximal_policy_and_the_weight_is_outside_of_it(cap, clip):
    answers = answers_of(2)
    rollout = rollout_of(answers, np.arange(7).repeat(2), np.arange(14) // 7, cap)
    mask = rollout.mask

    ppo = PPO(clip=clip, value_coef=0.0)
    standard = returns.standardise(ppo.advantages(rollout), mask).double()
    expected = by_hand(rollout, standard, cap, clip).sum() / mask.sum()
    torch.testing.assert_close(loss_of(ppo, rollout, POLICY).double(), expected)

    grpo = GRPO(clip=clip)
    compared = grpo.advantages(rollout)[:, None].double()
    expected = (by_hand(rollout, compared, cap, clip).sum(1) / mask.sum(1)).mean()
    torch.testing.assert_close(loss_of(grpo, rollout, POLICY).double(), expected)

    plus = REINFORCEPlusPlus(clip=clip)
    expected = by_hand(rollout, plus.advantages(rollout).double(), cap, clip).sum() / mask.sum()
    torch.testing.assert_close(loss_of(plus, rollout, POLICY).double(), expected)


def test_the_penalty_is_the_kl_to_the_proximal_policy():
    """Of answers of one letter the exact one, though BEHAVIOUR chose the tokens."""
    answers, penalty = answers_of(1), 3.0
    p, q, now = (probabilities(answers, x) for x in (PROXIMAL, BEHAVIOUR, POLICY))
    rollout = rollout_of(answers, np.arange(3), np.arange(3), INF)
    # Each answer once: a mean over the tokens weighs them alike, as if each had the chance 1/3.
    alike = replace(
        rollout,
        importance_weights=3
        * torch.as_tensor(q)[:, None]
        * rollout.weighed(torch.ones(rollout.mask.shape)),
    )
    with_it, without = (
        loss_of(PPOPenalty(penalty=x, value_coef=0.0), alike, POLICY) for x in (penalty, 0.0)
    )
    kl = exact.kl_divergence(np.log(p), np.log(now))
    assert (with_it - without).item() == pytest.approx(penalty * kl, rel=1e-4)


def test_the_weights_by_hand():
    logprobs, sampled = (
        torch.tensor([[-1.0, -2.0, 5.0]]),
        torch.tensor([[-1.5, -1.0, float("nan")]]),
    )
    weights = losses.truncated_ratios(
        logprobs, sampled, torch.tensor([[True, True, False]]), cap=1.2
    )
    torch.testing.assert_close(weights, torch.tensor([[1.2, np.exp(-1.0), 1.0]]).float())
    assert losses.truncated_ratios(
        torch.zeros(1, 1), torch.full((1, 1), -200.0), torch.ones(1, 1).bool(), INF
    ).isfinite()


def test_the_reported_kl_is_that_of_the_policy_and_not_of_who_sampled():
    answers = answers_of(1)
    q = probabilities(answers, BEHAVIOUR)
    rollout = rollout_of(answers, np.arange(3), np.arange(3), INF)
    alike = replace(
        rollout,
        ref_logprobs=POLICY.outputs(rollout.tokens, rollout.mask).logprobs.detach(),
        importance_weights=3 * torch.as_tensor(q)[:, None] * rollout.importance_weights,
    )
    p, ref = probabilities(answers, PROXIMAL), probabilities(answers, POLICY)
    expected = exact.kl_divergence(np.log(p), np.log(ref))
    assert _mean_kl(alike) == pytest.approx(expected, rel=1e-4)


# --- where they come from -------------------------------------------------------------------------


def small_learner(algorithm=None, **options):
    envs = letters_env(8, letters=3, max_new_tokens=6, group_size=2)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=5)
    options = {"n_episodes": 8, "learning_rate": 0.02, **options}
    return Learner(policy, envs, algorithm or RLOO(), **options)


def test_nothing_is_done_where_nothing_is_asked_for():
    learner = small_learner()
    update = learner.update()
    assert update.rollout.sampled_logprobs is update.rollout.importance_weights is None
    assert update.rollout.behaviour_logprobs is update.rollout.logprobs
    advantages = update.rollout.advantages
    assert update.rollout.weighed(advantages) is advantages
    assert "importance_weight" not in update.metrics


def test_weights_are_one_where_the_policy_itself_has_just_chosen():
    learner = small_learner(importance_cap=2.0)
    update = learner.update()
    weights = update.rollout.importance_weights[update.rollout.mask]
    torch.testing.assert_close(weights, torch.ones_like(weights), atol=1e-4, rtol=0)
    assert update.metrics["importance_weight"] == pytest.approx(1, abs=1e-4)
    assert update.metrics["capped_fraction"] == 0


def test_tokens_of_an_episode_that_ran_on_across_updates():
    """`sampled_logprobs` are those of the weights at each token, `logprobs` of the present ones."""
    learner = small_learner(importance_cap=INF)
    learner.update()
    weights = [{n: x.clone() for n, x in learner.policy.state_dict().items()}]
    for _ in range(3):
        update = learner.update()
        weights.append({n: x.clone() for n, x in learner.policy.state_dict().items()})
    rollout, found = update.rollout, []
    for state in weights[-3:-1]:
        learner.policy.load_state_dict(state)
        with torch.no_grad():
            found.append(learner.policy.outputs(rollout.tokens, rollout.mask).logprobs)
    older, begun = found  # before the last update but one, and before the last
    torch.testing.assert_close(rollout.logprobs, begun, atol=1e-4, rtol=0)
    sampled = rollout.sampled_logprobs
    by_older = rollout.mask & ((sampled - older).abs() < 1e-4) & ((sampled - begun).abs() > 1e-3)
    by_begun = rollout.mask & ((sampled - begun).abs() < 1e-4)
    assert by_older.any() and by_begun.any()
    torch.testing.assert_close(
        rollout.importance_weights[rollout.mask], (begun - sampled).exp()[rollout.mask]
    )


def test_penalties_are_those_of_the_present_policy():
    envs = letters_env(8, letters=3, max_new_tokens=6, group_size=2)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=5)
    learner = Learner(
        policy,
        envs,
        RLOO(),
        reference=policy.frozen_copy(),
        kl_coef=0.5,
        n_episodes=8,
        learning_rate=0.02,
        importance_cap=INF,
    )
    for _ in range(3):
        rollout = learner.update().rollout
    expected = 0.5 * torch.where(rollout.mask, rollout.logprobs - rollout.ref_logprobs, 0.0)
    torch.testing.assert_close(rollout.penalties, expected)
    assert (rollout.logprobs - rollout.sampled_logprobs).abs().max() > 1e-3


def test_another_precision_of_the_updates_has_the_ratio_one_all_the_same():
    """In bfloat16 the updates round otherwise than the sampling did."""
    shares = {}
    for cap in (None, 2.0):
        learner = small_learner(PPO(n_epochs=1), precision="bfloat16", importance_cap=cap)
        shares[cap] = learner.update().metrics["approx_kl"]
    assert shares[None] > 0
    assert shares[2.0] == 0


@pytest.mark.parametrize("algorithm", [RLOO(), BestOfN(), OffPolicyGradient(replay=2)], ids=repr)
def test_every_kind_of_algorithm_learns_with_them(algorithm):
    learner = small_learner(algorithm, importance_cap=1.5)
    for _ in range(3):
        update = learner.update()
    assert np.isfinite(update.metrics["loss"])
    assert update.metrics["importance_weight"] <= 1.5

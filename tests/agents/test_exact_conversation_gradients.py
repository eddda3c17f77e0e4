"""Gradients in conversations, against exact sums over all of them.

Two turns of at most two letters and a stop token; the world's reply is drawn, and after silence the
episode is over: 85 conversations and 7,225 pairs of them, so that the expected gradient of a loss
over groups of two is a finite sum.
"""

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from agents import GRPO, PPO, RLOO, DrGRPO, Learner, PPOPenalty, Rollout, returns
from benchmarks import exact_conversations as tasks
from policies import TransformerPolicy
from textenv import Reply, TextEnv, TextVectorEnv
from textenv.testing import exact

torch.set_num_threads(1)
BETA = 0.3


class Chat(tasks.Chat):
    """Takes silence for an end."""

    def reply(self, turn, rng):
        if turn.text:
            return super().reply(turn, rng)
        return Reply(reward=tasks.earned(), terminated=True)


TALKS = exact.enumerate_conversations(Chat, **tasks.OPTIONS)
TOKENS, MASK = torch.from_numpy(TALKS.tokens), torch.from_numpy(TALKS.mask)
TURNS, PAID = torch.from_numpy(TALKS.turns), torch.from_numpy(TALKS.token_rewards)
LENGTHS = TALKS.mask.sum(1)
PAIRS = np.array(list(product(range(len(TALKS)), repeat=2)))


def make_policy(seed):
    """Far from uniform, with values that are not 0."""
    env = TextEnv(world=Chat, **tasks.OPTIONS)
    policy = TransformerPolicy.for_env(env, n_layer=1, n_head=2, n_embd=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


POLICY, REFERENCE = make_policy(1), make_policy(2)
with torch.no_grad():
    OUTPUTS = POLICY.outputs(TOKENS, MASK)
    REF_TOKENS = REFERENCE.outputs(TOKENS, MASK).logprobs
OWN, REF = (
    TALKS.world_logprobs + logprobs.double().sum(1).numpy()
    for logprobs in (OUTPUTS.logprobs, REF_TOKENS)
)
P = np.exp(OWN)


def flat_gradient(loss):
    """Of everything but the value head, whose losses are not the policy's."""
    parts = [p for name, p in POLICY.named_parameters() if "value_head" not in name]
    gradients = torch.autograd.grad(loss, parts, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(gradients, parts, strict=True)
        ]
    ).double()


def of_weights(weights):
    """The gradient of -sum of weight * log-probability; weights are (n,) or (n, L)."""
    weights = torch.as_tensor(weights).float()
    weights = weights if weights.dim() == 2 else weights[:, None].expand(MASK.shape)
    logprobs = POLICY.outputs(TOKENS, MASK).logprobs
    return flat_gradient(-(weights * torch.where(MASK, logprobs, 0.0)).sum())


def exact_gradient(beta=BETA):
    """Of minus the objective."""
    return of_weights(exact.gradient_weights(OWN, TALKS.rewards, REF, beta))


def rollout_of(rows, groups, beta=BETA):
    """What the learner would have collected had these conversations been drawn."""
    rows, groups = torch.as_tensor(rows), torch.as_tensor(groups)
    log = Rollout.from_log(
        TOKENS[rows], MASK[rows], torch.as_tensor(TALKS.rewards)[rows], torch.as_tensor(groups)
    )
    penalties = beta * torch.where(MASK, OUTPUTS.logprobs - REF_TOKENS, 0.0)[rows]
    return replace(
        log,
        logprobs=OUTPUTS.logprobs[rows],
        values=OUTPUTS.values[rows],
        ref_logprobs=REF_TOKENS[rows],
        rewards=PAID[rows] - penalties,
        penalties=penalties,
        turns=TURNS[rows],
    )


def loss_of(algorithm, rollout, weights=1.0):
    """The loss with the advantages weighted, in which it is linear at the policy that chose."""
    advantages = algorithm.advantages(rollout)
    targets = algorithm.value_targets(rollout, advantages)
    if advantages.dim() == 1:
        advantages = advantages[:, None].expand(rollout.mask.shape)
    batch = replace(rollout, advantages=advantages * weights, value_targets=targets)
    loss = algorithm.loss(batch, POLICY.outputs(batch.tokens, batch.mask))
    return loss[0] if isinstance(loss, tuple) else loss


def expected_gradient(algorithm, beta=BETA):
    """Over all groups of two, each with its probability: no sampling, no error."""
    rollout = rollout_of(PAIRS.reshape(-1), np.arange(2 * len(PAIRS)) // 2, beta)
    weights = torch.as_tensor(P[PAIRS].prod(1) * len(PAIRS)).repeat_interleave(2)
    return flat_gradient(loss_of(algorithm, rollout, weights[:, None]))


def assert_equal(gradient, expected):
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)
    assert expected.norm() > 0.05


def test_probabilities_sum_to_one():
    assert P.sum() == pytest.approx(1, abs=1e-5)
    assert len(TALKS) == 1 + 6 * 2 * 7
    assert 0.1 < P[LENGTHS == 1].sum() < 0.9  # some end after the first turn, and some go on


def test_the_exact_gradient_is_that_of_the_objective():
    """By finite differences along itself."""
    parts = [p for name, p in POLICY.named_parameters() if "value_head" not in name]
    direction = -exact_gradient().float()
    direction = direction / direction.norm()
    pieces = direction.split([p.numel() for p in parts])
    values = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            for p, piece in zip(parts, pieces, strict=True):
                p.add_(step * piece.view_as(p))
            logprobs = POLICY.outputs(TOKENS, MASK).logprobs.double().sum(1).numpy()
            for p, piece in zip(parts, pieces, strict=True):
                p.sub_(step * piece.view_as(p))
        values.append(exact.objective(TALKS.world_logprobs + logprobs, TALKS.rewards, REF, BETA))
    slope = (values[0] - values[1]) / 2e-2
    assert slope == pytest.approx(exact_gradient().norm().item(), rel=1e-3)


# --- by comparison --------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "multiple"), [(RLOO, 1.0), (DrGRPO, 1 / 2)])
@pytest.mark.parametrize("beta", [0.0, BETA])
def test_whole_conversations_compared_give_the_exact_gradient(algorithm, multiple, beta):
    assert_equal(expected_gradient(algorithm(), beta), multiple * exact_gradient(beta))


def following(beta):
    """What was earned less the penalties, from the beginning of each turn on: (n, 2)."""
    paid = PAID - beta * torch.where(MASK, OUTPUTS.logprobs - REF_TOKENS, 0.0)
    each = torch.stack([torch.where(TURNS == k, paid, 0.0).sum(1) for k in (1, 2)], 1)
    return each.flip(1).cumsum(1).flip(1).double().numpy()


def by_turn(weights):
    """(n, 2) spread over the tokens of the turns."""
    weights = torch.as_tensor(weights)
    return sum(torch.where(TURNS == k, weights[:, k - 1, None], 0.0) for k in (1, 2))


@pytest.mark.parametrize("beta", [0.0, BETA])
def test_turns_compared_give_the_exact_gradient_of_what_is_compared(beta):
    """A second turn has somebody to be compared with as often as the other one speaks again."""
    going_on = P[(TALKS.turns == 2).any(1)].sum()
    earned = following(beta)
    found = expected_gradient(RLOO(credit=returns.by_turn), beta)
    assert_equal(found, of_weights(by_turn(P[:, None] * earned * [1.0, going_on])))
    # Where everybody has a second turn this is the exact gradient: rewards of the past, which it
    # leaves out, do not depend on what is said.
    assert_equal(of_weights(by_turn(P[:, None] * earned)), exact_gradient(beta))


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("credit", [returns.by_answer, returns.by_turn])
def test_grpo_divides_by_the_groups_spread_and_the_answers_lengths(beta, credit):
    """In a group of two half the difference of the returns, in units of that of the scores."""
    have = np.stack([np.ones(len(TALKS), bool), (TALKS.turns == 2).any(1)], 1)
    scores, earned = following(0.0), following(beta)
    if credit is returns.by_answer:  # both turns have the advantage of the first
        scores, earned, have = scores[:, [0, 0]], earned[:, [0, 0]], have[:, [0, 0]]
    both = have[:, None] & have[None]
    spread = np.abs(scores[:, None] - scores[None]) / 2
    units = np.where(spread > 1e-12, spread + 1e-4, 1.0)
    advantages = np.where(both, (earned[:, None] - earned[None]) / 2 / units, 0.0)
    weights = P[:, None] * np.einsum("ijk,j->ik", advantages, P) / LENGTHS[:, None]
    assert_equal(expected_gradient(GRPO(credit=credit), beta), of_weights(by_turn(weights)))


# --- with values ----------------------------------------------------------------------------------


def exact_values(beta):
    """The value of the text before each token: what the policy gets from there on, (n, L)."""
    paid = PAID - beta * torch.where(MASK, OUTPUTS.logprobs - REF_TOKENS, 0.0)
    coming = paid.flip(1).cumsum(1).flip(1).double().numpy()
    values = np.zeros(TALKS.tokens.shape)
    for place in range(1, TALKS.tokens.shape[1]):
        texts = {}
        for row in np.flatnonzero(TALKS.mask[:, place]):
            texts.setdefault(tuple(TALKS.tokens[row, :place]), []).append(row)
        for rows in texts.values():
            values[rows, place] = P[rows] @ coming[rows, place] / P[rows].sum()
    return torch.as_tensor(values)


CREDITS = [returns.gae, returns.gae_by_turn, returns.gae_by_answer]


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("credit", CREDITS)
def test_with_exact_values_every_grain_gives_the_exact_gradient(credit, gae_lambda, beta):
    rollout = rollout_of(np.arange(len(TALKS)), np.arange(len(TALKS)), beta)
    rollout = replace(rollout, values=exact_values(beta))
    advantages = PPO(credit=credit, gae_lambda=gae_lambda).advantages(rollout)
    assert_equal(of_weights(torch.as_tensor(P)[:, None] * advantages), exact_gradient(beta))


@pytest.mark.parametrize("credit", CREDITS)
def test_with_a_lambda_of_1_so_do_any_values(credit):
    rollout = rollout_of(np.arange(len(TALKS)), np.arange(len(TALKS)))
    advantages = PPO(credit=credit, gae_lambda=1.0).advantages(rollout)
    assert_equal(of_weights(torch.as_tensor(P)[:, None] * advantages), exact_gradient())
    assert (rollout.values - exact_values(BETA))[MASK].abs().max() > 0.1


ROLLOUTS, TALKS_EACH = 30, 1024


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("algorithm", [PPO, PPOPenalty])
@pytest.mark.parametrize("credit", CREDITS)
def test_the_first_step_of_ppo(algorithm, credit, beta):
    """A mean over a rollout's tokens, of advantages in units of their spread over the tokens."""
    ppo = algorithm(credit=credit, value_coef=0.0, gae_lambda=1.0)
    every = rollout_of(np.arange(len(TALKS)), np.arange(len(TALKS)), beta)
    advantages, weights = ppo.advantages(every), torch.as_tensor(P)[:, None] * MASK
    mean = (weights * advantages).sum() / weights.sum()
    spread = ((weights * (advantages - mean).square()).sum() / weights.sum()).sqrt()
    generator = torch.Generator().manual_seed(0)
    own = exact_gradient(beta)
    # Less the mean of the advantages, whose part of the expected gradient is 0.
    directions = torch.cat([torch.randn(4, len(own), generator=generator).double(), own[None]])
    directions = directions / directions.norm(dim=1, keepdim=True)
    expected = directions @ own / float(P @ LENGTHS) / spread
    rng, estimates = np.random.default_rng(1), []
    for _ in range(ROLLOUTS):
        rows = rng.choice(len(TALKS), TALKS_EACH, p=P / P.sum())
        rollout = rollout_of(rows, np.arange(TALKS_EACH), beta)
        estimates.append(directions @ flat_gradient(loss_of(ppo, rollout)))
    compare(torch.stack(estimates), expected)


def compare(estimates, expected, share=0.1):
    """Means within three standard errors, which are small beside what is estimated."""
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - expected).abs() < 3 * error).all()
    assert error[-1] < share * expected[-1].abs()


# --- the whole way from the environment -----------------------------------------------------------


@pytest.mark.parametrize("algorithm", [RLOO(), RLOO(credit=returns.by_turn)], ids=["whole", "turn"])
def test_what_the_learner_collects(algorithm):
    """With `tasks.Chat`, in which all conversations have two turns."""
    tokens, mask = tasks.TOKENS, tasks.MASK
    logprobs = POLICY.outputs(tokens, mask).logprobs.sum(1)
    with torch.no_grad():
        ref = REFERENCE.outputs(tokens, mask).logprobs.sum(1)
    world = tasks.TALKS.world_logprobs
    own, ref = world + logprobs.detach().double().numpy(), world + ref.double().numpy()
    weights = exact.gradient_weights(own, tasks.TALKS.rewards, ref, BETA)
    expected = flat_gradient(-(torch.as_tensor(weights) * logprobs).sum())
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4, len(expected), generator=generator).double()
    directions = torch.cat([directions, expected[None]])
    directions = directions / directions.norm(dim=1, keepdim=True)
    envs = TextVectorEnv(256, world=tasks.Chat, group_size=4, **tasks.OPTIONS)
    learner = Learner(
        POLICY, envs, algorithm, reference=REFERENCE, kl_coef=BETA, n_episodes=256, seed=3
    )
    estimates = [
        directions @ flat_gradient(loss_of(algorithm, learner.collect())) for _ in range(12)
    ]
    compare(torch.stack(estimates), directions @ expected, share=0.2)

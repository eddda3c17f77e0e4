"""The gradient of each loss against the exact one, summed over all answers.

Three tokens, two steps: 7 answers and 49 groups of two. Most losses are sums over groups, so their
expected gradient is itself a finite sum over the 49, and is compared with the exact one to rounding
error. Where a loss divides by something of the whole batch (the tokens in it, the spread of its
advantages) it is compared by sampling.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from letters import Letters
from torch.nn.utils import parameters_to_vector

from agents import (
    A2C,
    DAPO,
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
    SoftQLearning,
    Trainer,
)
from policies import PolicyOutputs, TransformerConfig, TransformerPolicy
from textenv import TextEnv, TextVectorEnv
from textenv.testing import exact

torch.set_num_threads(1)
BETA = 0.3
CLOSE = {"atol": 1e-5, "rtol": 1e-4}
REWARDS = {"": 0.3, "a": -0.5, "b": 1.0, "aa": 0.7, "ab": -1.2, "ba": 0.1, "bb": 0.4}


def score(episodes):
    return [REWARDS[episode.text] for episode in episodes]


def score_by_tokens(episodes):
    """For answers that hold the stop token as if it were a letter: all of their tokens count."""
    table = np.random.default_rng(0).normal(size=(3, 3))
    return [float(table[tuple(episode.tokens)]) for episode in episodes]


OPTIONS = {
    "prompts": ["a"],
    "reward": score,
    "tokenizer": Letters(2, stop=True),
    "max_new_tokens": 2,
}
ANSWERS = exact.enumerate_answers(TextEnv(**OPTIONS), "a")
TOKENS, MASK = torch.from_numpy(ANSWERS.tokens), torch.from_numpy(ANSWERS.mask)
LENGTHS = MASK.sum(1)
PAIRS = np.array(list(product(range(len(ANSWERS)), repeat=2)))


def make_policy(seed):
    """Far from uniform, with values that are not 0."""
    policy = TransformerPolicy(TransformerConfig(3, 3, n_layer=1, n_head=2, n_embd=8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


POLICY, REFERENCE = make_policy(1), make_policy(2)


def token_logprobs(policy):
    """(n, L), with gradients."""
    return policy.outputs(TOKENS, MASK).logprobs


with torch.no_grad():
    OWN = token_logprobs(POLICY).double().sum(1).numpy()
    REF = token_logprobs(REFERENCE).double().sum(1).numpy()
P = np.exp(OWN)


def flat_gradient(loss, policy=POLICY):
    """Of everything but the value head, whose losses are not the policy's."""
    parts = [p for name, p in policy.named_parameters() if "value_head" not in name]
    gradients = torch.autograd.grad(loss, parts, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(gradients, parts, strict=True)
        ]
    ).double()


def of_weights(weights, per_token=None):
    """The gradient of -sum over answers of weight * (weighted) log-probability."""
    logprobs = token_logprobs(POLICY)
    logprobs = logprobs if per_token is None else logprobs * torch.as_tensor(per_token).float()
    return flat_gradient(-(torch.as_tensor(weights).float() * logprobs.sum(1)).sum())


def exact_gradient(beta=BETA):
    """Of minus the objective."""
    return of_weights(exact.gradient_weights(OWN, ANSWERS.rewards, REF, beta))


def rollout_of(rows, groups, beta=BETA):
    """What the learner would have collected had it drawn these answers."""
    trainer = Trainer(POLICY, RLOO(), reference=REFERENCE)
    rows = torch.as_tensor(rows)
    rewards, groups = torch.as_tensor(ANSWERS.rewards)[rows], torch.as_tensor(groups)
    rollout = Rollout.from_log(TOKENS[rows], MASK[rows], rewards, groups)
    with torch.no_grad():
        outputs = trainer.outputs(rollout)
    last = rollout.mask & (rollout.mask.flip(1).cumsum(1).flip(1) == 1)
    rollout = trainer.with_reference(
        replace(
            rollout,
            logprobs=outputs.logprobs,
            values=outputs.values,
            rewards=torch.where(last, rollout.scores[:, None], 0.0),
        )
    )
    penalties = beta * torch.where(rollout.mask, rollout.logprobs - rollout.ref_logprobs, 0.0)
    return replace(rollout, rewards=rollout.rewards - penalties, penalties=penalties)


def loss_of(algorithm, rollout):
    advantages = algorithm.advantages(rollout)
    targets = algorithm.value_targets(rollout, advantages)
    batch = replace(rollout, advantages=advantages, value_targets=targets)
    outputs = POLICY.outputs(batch.tokens, batch.mask)
    loss = algorithm.loss(batch, outputs)
    return loss[0] if isinstance(loss, tuple) else loss


def expected_gradient(algorithm, beta=BETA):
    """Over all groups of two, each with its probability: no sampling, no error."""
    total = 0.0
    for i, j in PAIRS:
        gradient = flat_gradient(loss_of(algorithm, rollout_of([i, j], [0, 0], beta)))
        total = total + P[i] * P[j] * gradient
    return total


def assert_equal(gradient, expected):
    torch.testing.assert_close(gradient, expected, atol=2e-6, rtol=1e-4)
    assert expected.norm() > 0.05


# --- exactly the gradient of the objective --------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "multiple"),
    [
        (REINFORCE(value_coef=0.0), 1.0),
        (RLOO(), 1.0),
        (OffPolicyGradient(), 1.0),
        (DrGRPO(), 1 / 2),  # (n - 1) / n of groups of n = 2
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("beta", [0.0, BETA])
def test_unbiased(algorithm, multiple, beta):
    assert_equal(expected_gradient(algorithm, beta), multiple * exact_gradient(beta))


def test_the_exact_gradient_is_that_of_the_objective():
    """By finite differences along itself, so that nothing here rests on `gradient_weights`."""
    policy = make_policy(1)
    start = parameters_to_vector(
        [p for name, p in policy.named_parameters() if "value_head" not in name]
    ).detach()
    direction = -exact_gradient().float()
    direction = direction / direction.norm()
    values = []
    for step in (1e-2, -1e-2):
        offset = 0
        with torch.no_grad():
            for name, p in policy.named_parameters():
                if "value_head" not in name:
                    part = slice(offset, offset + p.numel())
                    p.copy_((start + step * direction)[part].view_as(p))
                    offset += p.numel()
            logprobs = token_logprobs(policy).double().sum(1).numpy()
        values.append(exact.objective(logprobs, ANSWERS.rewards, REF, BETA))
    slope = (values[0] - values[1]) / 2e-2
    assert slope == pytest.approx(exact_gradient().norm().item(), rel=1e-3)


# --- exactly the biased gradient that the docstring describes -------------------------------------


def penalised(beta):
    return ANSWERS.rewards - beta * (OWN - REF)


@pytest.mark.parametrize("beta", [0.0, BETA])
def test_grpo_divides_by_the_groups_spread_and_the_answers_lengths(beta):
    """In a group of two half the difference of their returns, in units of that of their scores."""
    scores, returns = ANSWERS.rewards, penalised(beta)
    spread = np.abs(scores[:, None] - scores[None, :]) / 2
    units = np.where(spread > 0, spread + 1e-4, 1.0)
    advantages = (returns[:, None] - returns[None, :]) / 2 / units
    weights = P * (advantages @ P) / LENGTHS.numpy()
    assert_equal(expected_gradient(GRPO(), beta), of_weights(weights))


@pytest.mark.parametrize("beta", [0.0, BETA])
def test_best_of_n_imitates_the_distribution_of_the_best(beta):
    r = penalised(beta)
    wins = (r[:, None] > r[None, :]) + 0.5 * (r[:, None] == r[None, :])
    best = 2 * P * (wins @ P)  # the probability that the better of two is this answer
    assert best.sum() == pytest.approx(1)
    assert_equal(expected_gradient(BestOfN(), beta), of_weights(best))


# --- by sampling ----------------------------------------------------------------------------------

ROLLOUTS, ANSWERS_EACH = 30, 1024
MEAN_LENGTH = float(P @ LENGTHS.numpy())


def token_moments(beta):
    """Standard deviations of scores to come, and of returns less values, over all tokens drawn."""
    rollout = rollout_of(np.arange(len(ANSWERS)), np.arange(len(ANSWERS)), beta)
    scores = (rollout.rewards + rollout.penalties).flip(1).cumsum(1).flip(1)
    following = rollout.rewards.flip(1).cumsum(1).flip(1)
    own, weights = {}, torch.as_tensor(P)[:, None] * MASK
    for name, x in {"scores": scores, "advantages": following - rollout.values}.items():
        mean = (weights * x).sum() / weights.sum()
        own[name] = ((weights * (x - mean).square()).sum() / weights.sum()).sqrt().item()
    return own


@pytest.fixture(scope="module")
def directions():
    """Four random ones and the exact gradient's own."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(4, len(exact_gradient()), generator=generator, dtype=torch.float64)
    together = torch.cat([random, exact_gradient()[None]])
    return together / together.norm(dim=1, keepdim=True)


def per_token_mean(beta):
    return exact_gradient(beta) / MEAN_LENGTH


def standardised(beta, of):
    return exact_gradient(beta) / MEAN_LENGTH / token_moments(beta)[of]


SAMPLED = {
    # One mean over tokens: the sum over a rollout's tokens divided by their number, which for a
    # big rollout is answers times the mean length.
    "A2C": (A2C(value_coef=0.0), lambda beta: per_token_mean(beta)),
    "TRPO": (TRPO(), lambda beta: per_token_mean(beta)),
    # The same, and advantages divided by their spread over the rollout.
    "PPO": (PPO(value_coef=0.0, gae_lambda=1.0), lambda beta: standardised(beta, "advantages")),
    "PPOPenalty": (
        PPOPenalty(value_coef=0.0, gae_lambda=1.0),
        lambda beta: standardised(beta, "advantages"),
    ),
    "REINFORCE++": (REINFORCEPlusPlus(), lambda beta: standardised(beta, "scores")),
}


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("name", SAMPLED)
def test_within_three_standard_errors(name, beta, directions):
    algorithm, target = SAMPLED[name]
    rng, estimates = np.random.default_rng(1), []
    for _ in range(ROLLOUTS):
        rows = rng.choice(len(ANSWERS), ANSWERS_EACH, p=P / P.sum())
        rollout = rollout_of(rows, np.arange(ANSWERS_EACH) // 4, beta)
        estimates.append(directions @ flat_gradient(loss_of(algorithm, rollout)))
    compare(torch.stack(estimates), directions @ target(beta))


def compare(estimates, expected):
    """Means within three standard errors, which are small beside what is estimated."""
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - expected).abs() < 3 * error).all()
    assert error[-1] < 0.05 * expected[-1].abs()


def test_dapo_drops_what_teaches_nothing():
    """Groups of two with equal scores are left out: a mean over the tokens of the others."""
    algorithm = DAPO()
    weights = np.zeros(len(ANSWERS))
    tokens = 0.0
    lengths = LENGTHS.numpy()
    for i, j in PAIRS:
        if i != j:
            difference = (ANSWERS.rewards[i] - ANSWERS.rewards[j]) / 2
            advantage = difference / (abs(difference) + 1e-4)
            weights[i] += P[i] * P[j] * advantage
            weights[j] -= P[i] * P[j] * advantage
            tokens += P[i] * P[j] * (lengths[i] + lengths[j])
    expected = of_weights(weights / tokens)

    rng, gradients = np.random.default_rng(1), []
    direction = expected / expected.norm()
    for _ in range(ROLLOUTS):

        def collect():
            rows = rng.choice(len(ANSWERS), ANSWERS_EACH, p=P / P.sum())
            return rollout_of(rows, np.arange(ANSWERS_EACH) // 2, 0.0)

        rollout = algorithm.gather(collect)
        assert len(rollout) >= ANSWERS_EACH
        gradients.append(direction @ flat_gradient(loss_of(algorithm, rollout)))
    compare(torch.stack(gradients)[:, None], (direction @ expected)[None])


# --- the whole way from the environment -----------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "multiple"),
    [
        (REINFORCE(value_coef=0.0), 1.0),
        (RLOO(), 1.0),
        (DrGRPO(), 3 / 4),
        (A2C(value_coef=0.0), 0.5),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_the_learner_collects(algorithm, multiple, directions):
    """Answers of two letters, so that all end at once; the KL penalty is the learner's.

    A mean over tokens is half of a sum over two; centring in groups of 4 leaves 3 / 4.
    """
    options = OPTIONS | {"stop_tokens": [], "reward": score_by_tokens}
    answers = exact.enumerate_answers(TextEnv(**options), "a")
    tokens, mask = torch.from_numpy(answers.tokens), torch.from_numpy(answers.mask)
    logprobs = POLICY.outputs(tokens, mask).logprobs.sum(1)
    with torch.no_grad():
        ref = REFERENCE.outputs(tokens, mask).logprobs.sum(1)
    weights = exact.gradient_weights(logprobs.detach(), answers.rewards, ref, BETA)
    expected = multiple * directions @ flat_gradient(-(torch.as_tensor(weights) * logprobs).sum())
    learner = Learner(
        POLICY,
        TextVectorEnv(256, group_size=4, **options),
        algorithm,
        reference=REFERENCE,
        kl_coef=BETA,
        n_episodes=256,
    )
    estimates = [
        directions @ flat_gradient(loss_of(algorithm, learner.collect())) for _ in range(ROLLOUTS)
    ]
    estimates = torch.stack(estimates)
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - expected).abs() < 3 * error).all()
    assert (error < 0.2 * expected.norm()).all()


# --- fixed points ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm",
    [RLOO(), GRPO(), DrGRPO(), TRPO(), REINFORCE(), A2C(), PPO(), PPO(gae_lambda=1.0)],
    ids=repr,
)
def test_every_advantage_is_zero_at_the_optimum(algorithm):
    """Score less KL penalty is then the same for all answers, so that no gradient has noise.

    With values, which at the optimum are that constant and the penalties of the tokens before.
    """
    constant = 0.4
    rollout = rollout_of(np.arange(len(ANSWERS)), np.zeros(len(ANSWERS), np.int64))
    penalties = rollout.penalties
    scores = constant + penalties.sum(1)  # the policy is the best one for these scores
    last = rollout.mask & (rollout.mask.flip(1).cumsum(1).flip(1) == 1)
    rollout = replace(
        rollout,
        scores=scores,
        rewards=torch.where(last, scores[:, None], 0.0) - penalties,
        values=constant + penalties.cumsum(1) - penalties,
    )
    assert scores.std() > 0.1
    advantages = algorithm.advantages(rollout)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages), **CLOSE)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_soft_q_learning_rests_at_the_optimum(gae_lambda):
    """The best policy with its soft values has no error, whatever the answers.

    V(s) = beta log of the mean of exp(r / beta) over what the reference answers from s on.
    """
    rollout = rollout_of(np.arange(len(ANSWERS)), np.arange(len(ANSWERS)), beta=0.0)
    texts = [tuple(t[m].tolist()) for t, m in zip(TOKENS, MASK, strict=True)]

    def value(prefix):
        below = [i for i, text in enumerate(texts) if text[: len(prefix)] == prefix]
        shares = np.exp(REF[below])
        shares = shares / shares.sum()
        return BETA * np.log(shares @ np.exp(ANSWERS.rewards[below] / BETA))

    values, best = torch.zeros(MASK.shape), torch.zeros(MASK.shape)
    for row, text in enumerate(texts):
        for step in range(len(text)):
            place, now = 1 + step, value(text[:step])
            following = ANSWERS.rewards[row] if step + 1 == len(text) else value(text[: step + 1])
            values[row, place] = now
            best[row, place] = rollout.ref_logprobs[row, place] + (following - now) / BETA
    # The closed form of whole answers, by another way.
    torch.testing.assert_close(
        best.double().sum(1), torch.as_tensor(exact.optimum(REF, ANSWERS.rewards, BETA)), **CLOSE
    )
    algorithm = SoftQLearning(beta=BETA, gae_lambda=gae_lambda)
    rollout = replace(rollout, values=values, present_logprobs=best)
    advantages = algorithm.advantages(rollout)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages), **CLOSE)
    targets = algorithm.value_targets(rollout, advantages)
    batch = replace(rollout, value_targets=targets)
    assert algorithm.loss(batch, PolicyOutputs(best, values, torch.zeros(MASK.shape))) < 1e-9
    # Anything else has an error.
    worse = PolicyOutputs(rollout.ref_logprobs, values, torch.zeros(MASK.shape))
    assert algorithm.loss(batch, worse) > 0.01

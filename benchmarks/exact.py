"""An environment whose best policy is known exactly, and how each algorithm is trained on it.

Three letters and a stop token, at most three of them: 40 answers, each with a random reward of 0
to 1. The best policy under a KL leash of `BETA` is pi_ref exp(r / BETA) / Z. Preferences are those
of a judge who prefers y to y' with probability sigmoid((r(y) - r(y')) / JUDGE).

`LEASHED` and `FREE` algorithms learn from rollouts of their own, `OFFLINE` ones from answers of the
reference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents import Collector, Learner, Rollout, Trainer, algorithms
from agents.algorithm import Algorithm
from policies import Policy, TransformerConfig, TransformerPolicy
from textenv import TextEnv, TextVectorEnv
from textenv.testing import exact

BETA = 0.2
"""Weight of the KL to the reference, in reward per nat."""
JUDGE = 0.2
"""Difference of two rewards at which the better one wins 73 times in 100."""
LETTERS, STEPS, GROUP = 3, 3, 8


class Letters:
    """Token i is the i-th letter of the alphabet; the last token ends an answer."""

    def __init__(self, letters: int):
        self.vocab_size, self.stop_token = letters + 1, letters
        self.name = self.fingerprint = f"{letters} letters"

    def encode(self, text: str) -> list[int]:
        """One token for each letter."""
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids: Any) -> str:
        """Letters, without the stop token."""
        return "".join(chr(ord("a") + int(i)) for i in ids if i < self.stop_token)


def reward(episodes: Any) -> list[float]:
    """A fixed random number for each answer."""
    return [_reward(tuple(episode.tokens.tolist())) for episode in episodes]


def _reward(tokens: tuple[int, ...], table: dict[tuple[int, ...], float] = {}) -> float:  # noqa: B006
    if tokens not in table:
        table[tokens] = float(np.random.default_rng([7, *tokens]).random())
    return table[tokens]


OPTIONS: dict[str, Any] = {
    "prompts": ["a"],
    "reward": reward,
    "tokenizer": Letters(LETTERS),
    "max_new_tokens": STEPS,
}
ANSWERS = exact.enumerate_answers(TextEnv(**OPTIONS), "a")
TOKENS, MASK = torch.from_numpy(ANSWERS.tokens), torch.from_numpy(ANSWERS.mask)


def make_policy(seed: int) -> TransformerPolicy:
    """A small network; larger embeddings make its first answers far from uniform."""
    shape = TransformerConfig(LETTERS + 1, STEPS + 1, n_layer=1, n_head=2, n_embd=32)
    policy = TransformerPolicy(shape, seed=seed)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(5)
    return policy


@torch.no_grad()
def answer_logprobs(policy: Policy) -> exact.Floats:
    """Log-probability of every answer, shape (n,)."""
    return policy.outputs(TOKENS, MASK).logprobs.double().sum(1).numpy()


@dataclass(frozen=True)
class Setting:
    """How an algorithm is trained.

    Attributes:
        algorithm: The algorithm.
        learning_rate: Learning rate at the start; it falls linearly to 0.
        updates: Number of rollouts.
        answers: Number of answers in a rollout.
        kl_coef: Weight of the KL penalty in the rewards.
        precision: dtype of the updates' products.
    """

    algorithm: Algorithm
    learning_rate: float
    updates: int
    answers: int = 256
    kl_coef: float = 0.0
    precision: torch.dtype = torch.float32

    def rate(self, done: float) -> float:
        """Learning rate after this share of the training."""
        return self.learning_rate * (1 - done)


LEASHED = {
    name: Setting(algorithm, learning_rate=6e-3, updates=updates, kl_coef=BETA)
    for name, (algorithm, updates) in {
        "REINFORCE": (algorithms.REINFORCE(), 100),
        "A2C": (algorithms.A2C(), 130),
        "PPO": (algorithms.PPO(n_epochs=2, minibatch_tokens=None), 100),
        "PPOPenalty": (algorithms.PPOPenalty(n_epochs=2, minibatch_tokens=None), 100),
        "TRPO": (algorithms.TRPO(), 60),  # it finds the length of its steps by itself
        "RLOO": (algorithms.RLOO(), 100),
        "GRPO": (algorithms.GRPO(), 100),
        "DrGRPO": (algorithms.DrGRPO(), 100),
        "REINFORCE++": (algorithms.REINFORCEPlusPlus(), 100),
        "OffPolicyGradient": (algorithms.OffPolicyGradient(), 100),
        "VinePPO": (algorithms.VinePPO(continuations=4, step_tokens=1), 60),
        "TreePO": (algorithms.TreePO(segment_tokens=1), 40),
        "TreePO by changes": (algorithms.TreePO(segment_tokens=1, credit="tree_changes"), 40),
        "TreePO, one left out": (
            algorithms.TreePO(segment_tokens=1, credit="tree_leave_one_out"),
            40,
        ),
    }.items()
} | {"SoftQLearning": Setting(algorithms.SoftQLearning(beta=BETA), learning_rate=6e-3, updates=60)}
"""Algorithms with a KL leash of `BETA`, compared with the closed form."""

FREE = {
    name: Setting(algorithm, learning_rate=1e-2, updates=20 if name != "TRPO" else 30)
    for name, algorithm in {
        "REINFORCE": algorithms.REINFORCE(),
        "A2C": algorithms.A2C(),
        "PPO": algorithms.PPO(n_epochs=2, minibatch_tokens=None),
        "PPOPenalty": algorithms.PPOPenalty(n_epochs=2, minibatch_tokens=None),
        "TRPO": algorithms.TRPO(),
        "RLOO": algorithms.RLOO(),
        "GRPO": algorithms.GRPO(),
        "DrGRPO": algorithms.DrGRPO(),
        "DAPO": algorithms.DAPO(),
        "REINFORCE++": algorithms.REINFORCEPlusPlus(),
        "OffPolicyGradient": algorithms.OffPolicyGradient(),
        "BestOfN": algorithms.BestOfN(),
    }.items()
}
"""Algorithms without a leash, compared with the best answer's reward."""

OFFLINE = {
    "DPO": Setting(
        algorithms.DPO(beta=BETA / JUDGE), learning_rate=1e-2, updates=150, answers=4096
    ),
    "IPO": Setting(algorithms.IPO(beta=BETA), learning_rate=1e-2, updates=80, answers=4096),
    "RewardWeightedRegression": Setting(
        algorithms.RewardWeightedRegression(beta=BETA),
        learning_rate=1e-2,
        updates=80,
        answers=4096,
    ),
    "KTO": Setting(
        algorithms.KTO(beta=BETA, desirable_above=0.5),
        learning_rate=1e-2,
        updates=40,
        answers=2048,
    ),
}
"""Algorithms that learn from the reference's answers, by preferences (DPO, IPO) or by rewards."""


def train_online(setting: Setting, seed: int) -> Iterator[tuple[Learner, int]]:
    """The learner after each update, and how many tokens were chosen so far.

    Each rollout starts anew, one answer a row, so that every answer is the present policy's own. A
    collector that goes on, as a learner's does, also brings answers that the policy before the
    last update began; ratios weigh their tokens, but not exactly.
    """
    policy = make_policy(seed)
    envs = TextVectorEnv(setting.answers, group_size=GROUP, **OPTIONS)
    learner = Learner(
        policy,
        envs,
        setting.algorithm,
        reference=policy.frozen_copy(),
        kl_coef=setting.kl_coef,
        learning_rate=setting.rate,
        precision=setting.precision,
        n_episodes=setting.answers,
        seed=seed,
    )
    for number in range(setting.updates):
        learner.collector = Collector(policy, envs, seed=1_000 * (seed * setting.updates + number))
        update = learner.update(number / setting.updates)
        yield learner, update.tokens


def train_offline(setting: Setting, seed: int) -> Iterator[tuple[Trainer, int]]:
    """The trainer after each rollout of the log, and how many tokens were read so far."""
    log = judged_pairs if isinstance(setting.algorithm, algorithms.DPO) else scored_answers
    policy = make_policy(seed)
    trainer = Trainer(
        policy,
        setting.algorithm,
        reference=policy.frozen_copy(),
        learning_rate=setting.rate,
        precision=setting.precision,
        seed=seed,
    )
    probabilities = np.exp(answer_logprobs(policy))
    probabilities /= probabilities.sum()  # float32 rounds; numpy checks
    rng, tokens = np.random.default_rng(seed), 0
    for number in range(setting.updates):
        rollout = log(rng, probabilities, setting.answers)
        tokens += rollout.num_tokens
        trainer.learn_from(rollout, number / setting.updates)
        yield trainer, tokens


def logged(indices: Any, scores: Any, groups: Any) -> Rollout:
    """A rollout of the answers with these numbers, without old probabilities."""
    rows = torch.as_tensor(indices)
    scores, groups = torch.as_tensor(scores), torch.as_tensor(groups)
    return Rollout.from_log(TOKENS[rows], MASK[rows], scores, groups)


def scored_answers(rng: np.random.Generator, probabilities: exact.Floats, answers: int) -> Rollout:
    """Answers with their rewards."""
    drawn = rng.choice(len(ANSWERS), answers, p=probabilities)
    return logged(drawn, ANSWERS.rewards[drawn], np.arange(answers))


def judged_pairs(rng: np.random.Generator, probabilities: exact.Floats, answers: int) -> Rollout:
    """Pairs of answers, 1 for the one that the judge prefers and 0 for the other."""
    drawn = rng.choice(len(ANSWERS), (answers // 2, 2), p=probabilities)
    first_wins = rng.random(answers // 2) < preference(*ANSWERS.rewards[drawn].T)
    scores = np.stack([first_wins, ~first_wins], axis=1)
    return logged(drawn.ravel(), scores.ravel(), np.arange(answers) // 2)


def preference(reward: exact.Floats, other: exact.Floats) -> exact.Floats:
    """Probability that the judge prefers the first answer."""
    return 1 / (1 + np.exp((other - reward) / JUDGE))


def ipo_optimum(ref_logprobs: exact.Floats, beta: float) -> exact.Floats:
    """Log-probabilities of IPO's best policy, shape (n,).

        pi*(y) = pi_ref(y) exp(p(y preferred to an answer of pi_ref) / beta) / Z

    Azar et al. (2023), arXiv:2310.12036, section 4.
    """
    rewards = ANSWERS.rewards
    wins = preference(rewards[:, None], rewards[None, :]) @ np.exp(ref_logprobs)
    return exact.optimum(ref_logprobs, wins, beta)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Attributes:
        share: Expected reward as a share of the best answer's reward.
        start: The same share before the training.
        regret: How far the objective with `BETA` is below its maximum.
        kl: KL to the reference, in nats per answer.
        total_variation: Total variation to the algorithm's own best policy.
    """

    share: float
    start: float
    regret: float
    kl: float
    total_variation: float


def outcome(name: str, policy: Policy, seed: int) -> Outcome:
    """How near the policy is to the algorithm's best one."""
    rewards = ANSWERS.rewards
    own, ref = answer_logprobs(policy), answer_logprobs(make_policy(seed))
    best = ipo_optimum(ref, BETA) if name == "IPO" else exact.optimum(ref, rewards, BETA)
    return Outcome(
        share=exact.expected_return(own, rewards) / rewards.max(),
        start=exact.expected_return(ref, rewards) / rewards.max(),
        regret=exact.regret(own, rewards, ref, BETA),
        kl=exact.kl_divergence(own, ref),
        total_variation=exact.total_variation(own, best),
    )

"""Three tasks whose best policy cannot be listed, and how each algorithm is trained on them.

"even ids": eight tokens after any prompt; the share of them that are even. "copy": three digits are
to be repeated; the share of places that are right. "sort": three digits are to be sorted; a
verifier pays 1 for the right answer, and half the share of right places for any other.

Even ids are learned from scratch. Copying and sorting begin from a policy that has seen some right
answers, as language models do, and scores about 0.5; that keeps the runs short.
Where an algorithm begins is also its reference, and gives the answers that the offline ones learn
from. 200 of the 1,000 numbers are held out; what is reported is measured on them.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents import Collector, Learner, Rollout, Trainer, algorithms
from agents.algorithm import Algorithm
from agents.evaluation import evaluate
from policies import Policy, TransformerPolicy
from textenv import Episode, Prompt, TextVectorEnv

NUMBERS = np.random.default_rng(0).permutation(1_000)
HELD_OUT, TRAINING = NUMBERS[:200], NUMBERS[200:]
ROWS, GROUP = 64, 8
LEASH = 0.02
"""Weight of the KL to the reference, in reward per nat."""


class Digits:
    """Tokens 0 to 9 are digits, 10 ends a prompt, 11 ends an answer."""

    name = fingerprint = "digits"
    vocab_size, stop_token = 12, 11

    def encode(self, text: str) -> list[int]:
        """One token for each character."""
        return ["0123456789>".index(character) for character in text]

    def decode(self, ids: Any) -> str:
        """Characters, without the stop token."""
        return "".join("0123456789>"[i] for i in ids if i < self.stop_token)


# ---------------------------------------------------------------- what is asked


def share_of_even_ids(episode: Episode) -> float:
    """The share of even ids among the answer's tokens."""
    return float(np.mean(episode.tokens % 2 == 0))


def share_of_right_places(episode: Episode) -> float:
    """The share of places where text and answer agree; the longer of the two counts."""
    right = episode.columns["answer"]
    same = sum(a == b for a, b in zip(episode.text, right, strict=False))
    return same / max(len(episode.text), len(right))


def verified(episode: Episode) -> float:
    """1 for the right answer, half the share of right places for any other."""
    exact = episode.text == episode.columns["answer"]
    return 1.0 if exact else share_of_right_places(episode) / 2


@dataclass(frozen=True)
class Task:
    """The question about a number of three digits, and the score of an answer.

    Attributes:
        score: Gives an answer its score, 0 to 1.
        solve: The right answer to a prompt's digits.
        max_new_tokens: Token budget of an answer.
        stop_tokens: Tokens that end an answer earlier.
        right_answers: Number of batches of right answers that are learned first.
    """

    score: Callable[[Episode], float]
    solve: Callable[[str], str]
    max_new_tokens: int = 4
    stop_tokens: Sequence[int] = (Digits.stop_token,)
    right_answers: int = 0

    def record(self, number: int) -> dict[str, str]:
        """A prompt such as "305>" with its `answer`."""
        return {"prompt": f"{number:03}>", "answer": self.solve(f"{number:03}")}

    def make_envs(self, rows: int, group_size: int = 1) -> TextVectorEnv:
        """An environment with prompts to train on."""
        return TextVectorEnv(
            rows,
            prompts=lambda rng: self.record(int(rng.choice(TRAINING))),
            max_prompt_tokens=4,
            reward=lambda episodes: [self.score(episode) for episode in episodes],
            tokenizer=Digits(),
            max_new_tokens=self.max_new_tokens,
            stop_tokens=self.stop_tokens,
            group_size=group_size,
        )


TASKS = {
    "even ids": Task(share_of_even_ids, lambda digits: "", 8, stop_tokens=()),
    "copy": Task(share_of_right_places, lambda digits: digits, right_answers=20),
    "sort": Task(verified, lambda digits: "".join(sorted(digits)), right_answers=30),
}


@functools.lru_cache
def beginner(name: str, seed: int) -> TransformerPolicy:
    """A small network that has seen a few right answers; to be copied, not trained."""
    task = TASKS[name]
    policy = TransformerPolicy.for_env(task.make_envs(1), n_layer=1, n_head=4, n_embd=64, seed=seed)
    # All right answers have the same weight, so the regression is plain maximum likelihood.
    trainer = Trainer(policy, algorithms.RewardWeightedRegression(), learning_rate=3e-3, seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(task.right_answers):
        trainer.learn_from(right_answers(task, rng.choice(TRAINING, 64)))
    return policy


def right_answers(task: Task, numbers: Any) -> Rollout:
    """A log of the right answers to these numbers."""
    vocabulary = Digits()
    records = [task.record(int(number)) for number in numbers]
    texts = [[*vocabulary.encode(r["prompt"] + r["answer"]), Digits.stop_token] for r in records]
    tokens = torch.tensor(texts)
    mask = (torch.arange(tokens.shape[1]) >= 4).expand_as(tokens)
    return Rollout.from_log(tokens, mask, torch.ones(len(tokens)), torch.arange(len(tokens)))


# ---------------------------------------------------------------- how it is learned


@dataclass(frozen=True)
class Setting:
    """How an algorithm is trained, on all tasks alike.

    Attributes:
        algorithm: The algorithm.
        learning_rate: Learning rate at the start; it falls linearly to 0.
        updates: Number of rollouts, or of passes over the log.
        n_steps: Length of a rollout that cuts answers; None plays `ROWS` whole ones.
        kl_coef: Weight of the KL penalty in the rewards.
        precision: dtype of the updates' products.
    """

    algorithm: Algorithm
    learning_rate: float
    updates: int
    n_steps: int | None = None
    kl_coef: float = LEASH
    precision: torch.dtype = torch.float32

    def rate(self, done: float) -> float:
        """Learning rate after this share of the training."""
        return self.learning_rate * (1 - done)


ONLINE = {
    "REINFORCE": Setting(algorithms.REINFORCE(), 3e-3, 80),
    "A2C": Setting(algorithms.A2C(), 3e-3, 80, n_steps=6),
    "PPO": Setting(algorithms.PPO(n_epochs=2, minibatch_tokens=None), 3e-3, 60),
    "PPOPenalty": Setting(algorithms.PPOPenalty(n_epochs=2, minibatch_tokens=None), 3e-3, 60),
    # TRPO finds the length of its steps by itself.
    "TRPO": Setting(algorithms.TRPO(max_kl=0.005, damping=0.1), 0.0, 40),
    "RLOO": Setting(algorithms.RLOO(), 2e-3, 80),
    "GRPO": Setting(algorithms.GRPO(), 3e-3, 80),
    "DrGRPO": Setting(algorithms.DrGRPO(), 2e-3, 80),
    "DAPO": Setting(algorithms.DAPO(max_rollouts=2), 3e-3, 60),
    "REINFORCE++": Setting(algorithms.REINFORCEPlusPlus(), 3e-3, 80),
    "OffPolicyGradient": Setting(algorithms.OffPolicyGradient(), 2e-3, 60),
    "SoftQLearning": Setting(algorithms.SoftQLearning(beta=0.1), 1e-3, 40, kl_coef=0.0),
    "BestOfN": Setting(algorithms.BestOfN(), 3e-3, 80),
}
"""Algorithms that learn from rollouts of their own."""

OFFLINE = {
    "DPO": Setting(algorithms.DPO(beta=0.3, minibatch_tokens=1024), 1e-3, 4),
    "IPO": Setting(algorithms.IPO(beta=0.1, minibatch_tokens=1024), 1e-3, 4),
    "KTO": Setting(algorithms.KTO(beta=1.0, desirable_above=0.5, minibatch_tokens=1024), 3e-4, 4),
    "RewardWeightedRegression": Setting(
        algorithms.RewardWeightedRegression(beta=0.05, minibatch_tokens=1024), 1e-3, 4
    ),
}
"""Algorithms that learn from a log of the reference's answers."""
LOGGED = 4_096
"""Number of answers in the log."""


def train_online(name: str, setting: Setting, seed: int) -> Iterator[tuple[Learner, int]]:
    """The learner after each update, and how many tokens were chosen so far."""
    policy = copy.deepcopy(beginner(name, seed))
    learner = Learner(
        policy,
        TASKS[name].make_envs(ROWS, GROUP),
        setting.algorithm,
        reference=policy.frozen_copy(),
        kl_coef=setting.kl_coef,
        learning_rate=setting.rate,
        precision=setting.precision,
        n_steps=setting.n_steps,
        n_episodes=None if setting.n_steps else ROWS,
        seed=seed,
    )
    for number in range(setting.updates):
        update = learner.update(number / setting.updates)
        yield learner, update.tokens


def train_offline(name: str, setting: Setting, seed: int) -> Iterator[tuple[Trainer, int]]:
    """The trainer after each pass over the log, and how many tokens were read so far."""
    policy = copy.deepcopy(beginner(name, seed))
    trainer = Trainer(
        policy,
        setting.algorithm,
        reference=policy.frozen_copy(),
        learning_rate=setting.rate,
        precision=setting.precision,
        seed=seed,
    )
    envs = TASKS[name].make_envs(ROWS, GROUP)
    log = trainer.with_reference(Collector(policy, envs, seed=seed).collect_episodes(LOGGED))
    for number in range(setting.updates):
        trainer.learn_from(log, number / setting.updates)
        yield trainer, (number + 1) * log.num_tokens


@dataclass(frozen=True)
class Outcome:
    """Figures of the answers to the held-out prompts.

    Attributes:
        score: Mean score.
        kl: KL to the reference, in nats per answer.
        entropy: Entropy of the choices, in nats per token, estimated by - log p of each choice.
    """

    score: float
    kl: float
    entropy: float


def outcome(name: str, policy: Policy, seed: int) -> Outcome:
    """One answer of the policy to each held-out prompt."""
    task = TASKS[name]
    prompts = [Prompt.from_row(task.record(int(number))) for number in HELD_OUT]
    found = evaluate(
        policy, task.make_envs(len(prompts)), prompts, reference=beginner(name, seed), seed=seed
    )
    entropy = -found.logprobs.sum() / found.num_tokens
    return Outcome(float(found.scores.mean()), found.kl_per_answer, float(entropy))

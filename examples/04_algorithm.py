"""An algorithm of one's own, from an idea to a row in a table.

The idea: only the order of a group's scores should count, not by how much they differ. All answers
of the environment can be listed, so the results are exact: the expected return, the KL to the
policy at the start, and the distance to the best policy for that weight of the KL.

Run: python examples/04_algorithm.py [updates]
"""

import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from agents import GRPO, RLOO, Algorithm, Learner, Needs, losses
from policies import TransformerPolicy
from textenv import TextEnv, TextVectorEnv
from textenv.testing import exact


@dataclass(frozen=True)
class Ranked(Algorithm):
    """The policy gradient with ranks: 1 for the best answer of a group, -1 for the worst."""

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    def advantages(self, rollout):
        """Answers with a lower score less those with a higher one, as share of the others, (S,)."""
        returns, groups = rollout.episode_returns, rollout.groups
        same = groups[:, None] == groups
        beaten = torch.sign(returns[:, None] - returns) * same
        return beaten.sum(1) / (same.sum(1) - 1)

    def loss(self, batch, outputs):
        """Minus the mean over answers of advantage times log-probability."""
        return -losses.sequence_sum(batch.advantages[:, None] * outputs.logprobs, batch.mask)


class Letters:
    """Tokens 0 to 3 are a, b, c, d; token 4 ends an answer."""

    name = fingerprint = "four letters"
    vocab_size, stop_token = 5, 4

    def encode(self, text):
        """One token for each letter."""
        return ["abcd".index(letter) for letter in text]

    def decode(self, ids):
        """Letters, without the stop token."""
        return "".join("abcd"[i] for i in ids if i < 4)


def alphabetical(episodes):
    """Number of neighbours in the order of the alphabet, for each answer."""
    return [float(sum(a < b for a, b in zip(e.text, e.text[1:], strict=False))) for e in episodes]


TASK = {
    "prompts": ["a"],
    "reward": alphabetical,
    "tokenizer": Letters(),
    "max_new_tokens": 4,
}
KL_COEF = 0.3
ANSWERS = exact.enumerate_answers(TextEnv(**TASK), "a")


@torch.no_grad()
def logprobs(policy):
    """Log-probability of every possible answer."""
    tokens, mask = torch.from_numpy(ANSWERS.tokens), torch.from_numpy(ANSWERS.mask)
    return policy.outputs(tokens, mask).logprobs.sum(1).numpy()


def train(algorithm, seed, updates):
    """Return, KL, total variation to the optimum and seconds of one run."""
    envs = TextVectorEnv(256, group_size=8, **TASK)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=32, seed=seed)
    reference = policy.frozen_copy()
    learner = Learner(
        policy,
        envs,
        algorithm,
        reference=reference,
        kl_coef=KL_COEF,
        learning_rate=lambda done: 3e-3 * (1 - done),
        n_episodes=256,
        seed=seed,
    )
    begin = time.perf_counter()
    for number in range(updates):
        learner.update(fraction_done=number / updates)
    own, other = logprobs(policy), logprobs(reference)
    best = exact.optimum(other, ANSWERS.rewards, KL_COEF)
    return (
        exact.expected_return(own, ANSWERS.rewards),
        exact.kl_divergence(own, other),
        exact.total_variation(own, best),
        time.perf_counter() - begin,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    print(f"{len(ANSWERS)} answers; the best return is {ANSWERS.rewards.max():.0f}")
    print("algorithm   return    KL   total variation to the optimum   seconds   (three seeds)")
    for algorithm in (RLOO(), GRPO(), Ranked()):
        runs = np.mean([train(algorithm, seed, updates) for seed in range(3)], axis=0)
        print("{:10} {:7.2f} {:6.2f} {:13.3f} {:28.1f}".format(type(algorithm).__name__, *runs))

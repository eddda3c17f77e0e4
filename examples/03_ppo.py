"""PPO on that reward: a transformer learns to write vowels.

Run: python examples/03_ppo.py [total_tokens]
"""

import sys

import gymnasium as gym

import textenv  # noqa: F401  (registers the environments)
from agents import PPO, Learner
from policies import TransformerPolicy


def vowels(episodes):
    """Share of vowels in each answer."""
    return [sum(c in "aeiou" for c in e.text) / max(len(e.text), 1) for e in episodes]


envs = gym.make_vec(
    "textenv/Generate-v0",
    num_envs=64,
    prompts=["the ", "a "],
    reward=vowels,
    tokenizer="bytes",
    max_new_tokens=32,
)
policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64)
learner = Learner(
    policy,
    envs,
    PPO(n_epochs=4),
    reference=policy.frozen_copy(),
    kl_coef=0.002,
    learning_rate=1e-3,
    n_steps=64,
    seed=0,
)
total_tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
for update in learner.updates(total_tokens):
    print(
        f"{update.tokens:7d} tokens  return {update.score:.3f}  KL {update.kl:.3f}  "
        f"{update.tokens_per_second:.0f} tokens/s"
    )
print(policy.generate(["the ", "a "], max_new_tokens=32))

"""A reward in ten lines, combined with a second one; every component is reported.

Run: python examples/02_reward.py
"""

import gymnasium as gym

import textenv  # noqa: F401  (registers the environments)
from textenv.rewards import per_text, weighted


def vowels(episodes):
    """Share of vowels in each answer."""
    return [sum(c in "aeiou" for c in e.text) / max(len(e.text), 1) for e in episodes]


@per_text
def capitals(text):
    """Number of capital letters."""
    return sum(c.isupper() for c in text)


envs = gym.make_vec(
    "textenv/Generate-v0",
    num_envs=4,
    prompts=["the ", "a "],
    reward=weighted(vowels=(1.0, vowels), capitals=(-0.1, capitals)),
    tokenizer="bytes",
    max_new_tokens=8,
)
envs.reset(seed=1)
envs.action_space.seed(1)
for _ in range(8):
    observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())

# Rows that ended were restarted in the same step; what they ended with is in the final info.
final = infos["final_info"]
for row in terminated.nonzero()[0]:
    parts = {
        k: round(float(v[row]), 2) for k, v in final["reward_components"].items() if k[0] != "_"
    }
    print(f"{final['text'][row]!r:30} reward {rewards[row]:.2f} = {parts}")

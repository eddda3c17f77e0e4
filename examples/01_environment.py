"""The environment and a random agent: an episode, step by step.

Run: python examples/01_environment.py
"""

import gymnasium as gym

import textenv  # noqa: F401  (registers the environments)


def vowels(episodes):
    """Share of vowels in each answer."""
    return [sum(c in "aeiou" for c in e.text) / max(len(e.text), 1) for e in episodes]


env = gym.make(
    "textenv/Generate-v0",
    prompts=["the ", "a "],
    reward=vowels,
    tokenizer="bytes",
    max_new_tokens=8,
)
observation, info = env.reset(seed=1)
env.action_space.seed(1)
print(f"prompt {info['prompt']!r}, observation {observation}")

done = False
while not done:
    action = env.action_space.sample()
    observation, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated
    print(f"token {action:3d}  reward {reward:.2f}  observation {observation}")
print(f"answer {info['text']!r}, ended by {info['finish_reason']}")

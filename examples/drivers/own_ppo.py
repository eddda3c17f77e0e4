"""Our own PPO: the learner collects rollouts and takes the steps.

Run: python examples/drivers/own_ppo.py [total_tokens] [world]
"""

import torch
from task import NETWORK, TASK, arguments, make_envs

from agents import PPO, Learner
from policies import TransformerPolicy

num_envs, num_steps = 32, 32
learning_rate = 3e-3


def train(total_tokens: int, seed: int = 0, task: dict = TASK) -> float:
    """Train a small transformer; returns the mean score of the last update's episodes."""
    envs = make_envs(num_envs, task)
    policy = TransformerPolicy.for_env(envs, seed=seed, **NETWORK)
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=4, minibatch_tokens=256, entropy_coef=0.01),
        learning_rate=lambda done: learning_rate * (1 - done),
        n_steps=num_steps,
        max_grad_norm=0.5,
        seed=seed,
    )
    for update in learner.updates(total_tokens):
        print(f"{update.tokens:7d} tokens  score {update.score:.3f}")
    return update.score


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(**arguments())

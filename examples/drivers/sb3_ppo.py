"""Stable-Baselines3's PPO from the released package, with cached decoding and one pass over a text.

Run: python examples/drivers/sb3_ppo.py [total_tokens] [world]
"""

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from task import NETWORK, TASK, arguments, make_envs

from agents.sb3 import SB3TokenPolicy, TrajectoryBuffer, to_vec_env

num_envs, num_steps = 32, 32
learning_rate = 3e-3


class Report(BaseCallback):
    """The mean return of each rollout's episodes."""

    def _on_rollout_start(self) -> None:
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.returns += [info["episode"]["r"] for info in infos if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        print(f"{self.num_timesteps:7d} tokens  return {np.mean(self.returns):.3f}")


def train(total_tokens: int, seed: int = 0, task: dict = TASK) -> float:
    """Train a small transformer; returns the mean return of the last update's episodes."""
    model = PPO(
        SB3TokenPolicy,
        to_vec_env(make_envs(num_envs, task)),
        rollout_buffer_class=TrajectoryBuffer,
        n_steps=num_steps,
        batch_size=256,
        n_epochs=4,
        learning_rate=lambda remaining: learning_rate * remaining,
        gamma=1.0,
        ent_coef=0.01,
        policy_kwargs=dict(NETWORK),
        seed=seed,
    )
    report = Report()
    model.learn(total_tokens, callback=report)
    return float(np.mean(report.returns))


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(**arguments())

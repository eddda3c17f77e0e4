"""sb3-contrib's MaskablePPO from the released package: tokens that the environment forbids.

It differs from `sb3_ppo.py` by the algorithm, the policy, the buffer, and four letters that may not
be written. MaskablePPO asks the environment for its masks before every step.

Run: python examples/drivers/sb3_contrib_ppo.py [total_tokens] [world]
"""

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_ppo import Report, learning_rate, num_envs, num_steps
from task import LETTERS, NETWORK, TASK, arguments, make_envs

from agents.sb3 import to_vec_env
from agents.sb3.maskable import MaskableTrajectoryBuffer, SB3MaskableTokenPolicy

FORBIDDEN = [LETTERS.index(letter) for letter in "mnop"]  # a quarter of the rest are vowels too


def train(total_tokens: int, seed: int = 0, task: dict = TASK) -> float:
    """Train a small transformer; returns the mean return of the last update's episodes."""
    model = MaskablePPO(
        SB3MaskableTokenPolicy,
        to_vec_env(make_envs(num_envs, task, forbidden_tokens=FORBIDDEN)),
        rollout_buffer_class=MaskableTrajectoryBuffer,
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

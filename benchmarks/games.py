"""Games of other players, and fine-tuning on them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.supervised.fitting import Fitting
from agents.supervised.sft import answer_loss
from policies import Policy
from textenv import TextVectorEnv


def play(
    envs: TextVectorEnv, act: Callable[..., NDArray[Any]], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """One game in every row.

    Args:
        envs: Games; one for each that is to be played.
        act: Gives the next tokens of observations, shape (rows, L), and infos.
        seed: Of the games.

    Returns:
        Rewards (rows,), texts (rows, L) and whether the agent chose the token (rows, L).
    """
    observations, infos = envs.reset(seed=seed)
    rows = np.arange(envs.num_envs)
    texts, chosen = observations.copy(), np.zeros(observations.shape, dtype=bool)
    rewards, running = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
    while running.any():
        places = (observations != envs.pad_token).sum(1)
        chosen[rows[running], places[running]] = True
        observations, paid, terminated, truncated, infos = envs.step(act(observations, infos))
        over = (terminated | truncated) & running
        for row in np.flatnonzero(over):
            texts[row] = infos["final_obs"][row]
        rewards[over] = paid[over]
        running &= ~over
    return rewards, texts, chosen


def fine_tune(
    policy: Policy,
    texts: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    *,
    seed: int,
    steps: int = 800,
    batch: int = 64,
) -> None:
    """Fit a policy to what was chosen in `texts`, as `play` gives both."""
    lengths = (texts != policy.pad_token).sum(1)
    fitting = Fitting(policy, steps=steps, learning_rate=3e-3)
    order = np.random.default_rng(seed)
    for _ in range(steps):
        rows = order.integers(len(texts), size=batch)
        longest = lengths[rows].max()
        tokens, learned = texts[rows, :longest], chosen[rows, :longest]
        inputs = [torch.from_numpy(array) for array in (tokens, learned, lengths[rows])]
        fitting.step([answer_loss(policy, *inputs)])

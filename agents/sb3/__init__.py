"""Stable-Baselines3's algorithms, from the released package, on text.

    PPO(SB3TokenPolicy, to_vec_env(envs), rollout_buffer_class=TrajectoryBuffer).learn(100_000)

`to_vec_env` turns a vector environment into SB3's `VecEnv`. `SB3TokenPolicy` puts any policy of
`policies` behind SB3's interface and uses the prefix cache at rollout. `TrajectoryBuffer` stores
each sequence once, so that one causal pass reads it. `TokenFeaturesExtractor` serves every other
algorithm of SB3. The classes for sb3-contrib's `MaskablePPO` are in `agents.sb3.maskable`.
"""

from textenv.imports import optional

with optional("stable-baselines3", extra="sb3", purpose="agents.sb3"):
    import stable_baselines3  # noqa: F401

from agents.sb3.buffer import TrajectoryBuffer
from agents.sb3.features import TokenFeaturesExtractor
from agents.sb3.policy import SB3TokenPolicy
from agents.sb3.trajectories import Trajectories
from agents.sb3.vec_env import TextVecEnv, to_vec_env

__all__ = [
    "SB3TokenPolicy",
    "TextVecEnv",
    "TokenFeaturesExtractor",
    "Trajectories",
    "TrajectoryBuffer",
    "to_vec_env",
]

"""What learns: returns, losses, rollouts, the learner and the algorithms."""

from agents import losses, returns
from agents.algorithm import PPO, Algorithm
from agents.collector import Collector
from agents.kl import AdaptiveKL, FixedKL
from agents.learner import Learner, Update
from agents.rollout import Rollout

__all__ = [
    "PPO",
    "AdaptiveKL",
    "Algorithm",
    "Collector",
    "FixedKL",
    "Learner",
    "Rollout",
    "Update",
    "losses",
    "returns",
]

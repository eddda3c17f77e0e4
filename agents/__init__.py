"""What learns: returns, losses, rollouts, the learner and the algorithms."""

from agents import losses, returns
from agents.algorithm import PPO, Algorithm
from agents.algorithms import GRPO
from agents.collector import Collector
from agents.kl import AdaptiveKL, FixedKL
from agents.learner import Learner, Update
from agents.loggers import ConsoleLogger, CSVLogger, TensorBoardLogger
from agents.rollout import Rollout

__all__ = [
    "GRPO",
    "PPO",
    "AdaptiveKL",
    "Algorithm",
    "CSVLogger",
    "Collector",
    "ConsoleLogger",
    "FixedKL",
    "Learner",
    "Rollout",
    "TensorBoardLogger",
    "Update",
    "losses",
    "returns",
]

"""What learns: returns, losses, rollouts, the learner and the algorithms."""

from agents import losses, returns
from agents.algorithm import Algorithm
from agents.algorithms import (
    A2C,
    DAPO,
    DPO,
    GRPO,
    IPO,
    KTO,
    PPO,
    REINFORCE,
    RLOO,
    TRPO,
    BestOfN,
    DrGRPO,
    OffPolicyGradient,
    PPOPenalty,
    PPOPtx,
    REINFORCEPlusPlus,
    RewardWeightedRegression,
    SoftQLearning,
)
from agents.collector import Collector
from agents.kl import AdaptiveKL, FixedKL
from agents.learner import Learner, Update
from agents.rollout import Rollout
from agents.runs.loggers import ConsoleLogger, CSVLogger, TensorBoardLogger
from agents.trainer import Trainer

__all__ = [
    "A2C",
    "DAPO",
    "DPO",
    "GRPO",
    "IPO",
    "KTO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "TRPO",
    "AdaptiveKL",
    "Algorithm",
    "BestOfN",
    "CSVLogger",
    "Collector",
    "ConsoleLogger",
    "DrGRPO",
    "FixedKL",
    "Learner",
    "OffPolicyGradient",
    "PPOPenalty",
    "PPOPtx",
    "REINFORCEPlusPlus",
    "RewardWeightedRegression",
    "Rollout",
    "SoftQLearning",
    "TensorBoardLogger",
    "Trainer",
    "Update",
    "losses",
    "returns",
]

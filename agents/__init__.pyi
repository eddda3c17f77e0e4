from . import losses, preference_losses, returns
from .algorithm import Algorithm, Needs
from .algorithms import (
    A2C,
    CISPO,
    DAPO,
    DPO,
    GRPO,
    GSPO,
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
    VinePPO,
)
from .collector import Collector
from .kl import AdaptiveKL, FixedKL
from .learner import Learner
from .rollout import Rollout
from .runs.loggers import ConsoleLogger, CSVLogger, TensorBoardLogger
from .runs.update import Update
from .trainer import Trainer

__all__ = [
    "A2C",
    "CISPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
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
    "Needs",
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
    "VinePPO",
    "losses",
    "preference_losses",
    "returns",
]

"""The field's algorithms, each an advantage and a loss over the shared learner."""

from agents.algorithms.actor_critic import A2C, REINFORCE
from agents.algorithms.distillation import GKD, OnPolicyDistillation
from agents.algorithms.groups import DAPO, GRPO, RLOO, DrGRPO, REINFORCEPlusPlus
from agents.algorithms.imitation import BestOfN, RewardWeightedRegression
from agents.algorithms.off_policy import OffPolicyGradient, SoftQLearning
from agents.algorithms.ppo import PPO, PPOPenalty
from agents.algorithms.preferences import DPO, IPO, KTO
from agents.algorithms.pretraining_mix import PPOPtx
from agents.algorithms.ratios import CISPO, GSPO
from agents.algorithms.trees import TreePO
from agents.algorithms.trpo import TRPO
from agents.algorithms.vine import VinePPO

__all__ = [
    "A2C",
    "CISPO",
    "DAPO",
    "DPO",
    "GKD",
    "GRPO",
    "GSPO",
    "IPO",
    "KTO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "TRPO",
    "BestOfN",
    "DrGRPO",
    "OffPolicyGradient",
    "OnPolicyDistillation",
    "PPOPenalty",
    "PPOPtx",
    "REINFORCEPlusPlus",
    "RewardWeightedRegression",
    "SoftQLearning",
    "TreePO",
    "VinePPO",
]

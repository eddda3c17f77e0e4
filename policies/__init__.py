"""Networks that read observations of token ids and choose tokens."""

from policies.cache import PrefixCache
from policies.checkpoint import load_policy, save_policy
from policies.classifier_reward import ClassifierReward
from policies.dropout import Dropout, dropping
from policies.generation import generate, generate_tokens
from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy, train_last_layers
from policies.outputs import PolicyOutputs, Step
from policies.policy import Policy, tokenizer_of
from policies.reward_ensemble import (
    MeanLessSpread,
    MeanLessVariance,
    RewardModelEnsemble,
    load_reward_model,
    worst_case,
)
from policies.reward_model import RewardModel
from policies.rotary import Rope
from policies.separate_value import SeparateValue
from policies.text_classifier import LabelScore, TextClassifier
from policies.transformer import Transformer, TransformerConfig
from policies.transformer_policy import TransformerPolicy

__all__ = [
    "ClassifierReward",
    "Dropout",
    "EncoderDecoderPolicy",
    "HuggingFacePolicy",
    "LabelScore",
    "MeanLessSpread",
    "MeanLessVariance",
    "Policy",
    "PolicyOutputs",
    "PrefixCache",
    "RewardModel",
    "RewardModelEnsemble",
    "Rope",
    "SeparateValue",
    "Step",
    "TextClassifier",
    "Transformer",
    "TransformerConfig",
    "TransformerPolicy",
    "dropping",
    "generate",
    "generate_tokens",
    "load_policy",
    "load_reward_model",
    "save_policy",
    "tokenizer_of",
    "train_last_layers",
    "worst_case",
]

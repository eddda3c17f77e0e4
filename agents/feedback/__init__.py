"""Preferences between answers: labellers, reward models, and training on fresh preferences."""

from agents.feedback.direct import DirectPreferences, DirectStep
from agents.feedback.labellers import snownlp_labeller, vader_labeller
from agents.feedback.length import LengthBias, Scorer, length_bias, remove_length
from agents.feedback.online import Round, fit_reward_model, online_rounds
from agents.feedback.preferences import (
    Labeller,
    Ranking,
    append_rankings,
    laid_flat,
    preference_rollout,
    rank,
    read_rankings,
    sample_answers,
)
from agents.feedback.reward_losses import RankingLoss, kwise, pairwise, plackett_luce
from agents.feedback.reward_modelling import (
    Calibration,
    CalibrationBin,
    RewardModelStep,
    calibration,
    normalise,
    pair_accuracy,
    reward_model_steps,
    split_rankings,
    standardise,
)
from agents.feedback.terminal import label_in_terminal, parse_ranking, unranked

__all__ = [
    "Calibration",
    "CalibrationBin",
    "DirectPreferences",
    "DirectStep",
    "Labeller",
    "LengthBias",
    "Ranking",
    "RankingLoss",
    "RewardModelStep",
    "Round",
    "Scorer",
    "append_rankings",
    "calibration",
    "fit_reward_model",
    "kwise",
    "label_in_terminal",
    "laid_flat",
    "length_bias",
    "normalise",
    "online_rounds",
    "pair_accuracy",
    "pairwise",
    "parse_ranking",
    "plackett_luce",
    "preference_rollout",
    "rank",
    "read_rankings",
    "remove_length",
    "reward_model_steps",
    "sample_answers",
    "snownlp_labeller",
    "split_rankings",
    "standardise",
    "unranked",
    "vader_labeller",
]

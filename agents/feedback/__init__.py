"""Preferences between answers: labellers, reward models, and training on fresh preferences."""

from agents.feedback.agreement import Agreement, agreement
from agents.feedback.direct import DirectPreferences, DirectStep
from agents.feedback.from_models.judging import (
    PairwiseJudge,
    PositionBias,
    agreed,
    position_bias,
    unbiased,
)
from agents.feedback.from_models.language_model import LanguageModel, LocalModel
from agents.feedback.from_models.principles import read_principles
from agents.feedback.from_models.revision import Revision, revise
from agents.feedback.from_models.self_instruct import Filters, Instruction, self_instruct
from agents.feedback.from_people.human_reward import HumanReward
from agents.feedback.from_people.live import live_session
from agents.feedback.from_people.watched import Watched
from agents.feedback.labellers import Remembered, snownlp_labeller, vader_labeller
from agents.feedback.length import LengthBias, Scorer, length_bias, remove_length
from agents.feedback.online import Round, fit_reward_model, online_rounds
from agents.feedback.preferences import Labeller, preference_rollout, rank, sample_answers
from agents.feedback.rankings import (
    Asked,
    Ranking,
    append_rankings,
    has_messages,
    laid_flat,
    read_rankings,
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
from agents.feedback.segments import Segments, fit_token_reward, sample_segments
from agents.feedback.terminal import label_in_terminal, parse_ranking, terminal_labeller, unranked

__all__ = [
    "Agreement",
    "Asked",
    "Calibration",
    "CalibrationBin",
    "DirectPreferences",
    "DirectStep",
    "Filters",
    "HumanReward",
    "Instruction",
    "Labeller",
    "LanguageModel",
    "LengthBias",
    "LocalModel",
    "PairwiseJudge",
    "PositionBias",
    "Ranking",
    "RankingLoss",
    "Remembered",
    "Revision",
    "RewardModelStep",
    "Round",
    "Scorer",
    "Segments",
    "Watched",
    "agreed",
    "agreement",
    "append_rankings",
    "calibration",
    "fit_reward_model",
    "fit_token_reward",
    "has_messages",
    "kwise",
    "label_in_terminal",
    "laid_flat",
    "length_bias",
    "live_session",
    "normalise",
    "online_rounds",
    "pair_accuracy",
    "pairwise",
    "parse_ranking",
    "plackett_luce",
    "position_bias",
    "preference_rollout",
    "rank",
    "read_principles",
    "read_rankings",
    "remove_length",
    "revise",
    "reward_model_steps",
    "sample_answers",
    "sample_segments",
    "self_instruct",
    "snownlp_labeller",
    "split_rankings",
    "standardise",
    "terminal_labeller",
    "unbiased",
    "unranked",
    "vader_labeller",
]

"""Learning from text and from examples, before any reward: pretraining and fine-tuning."""

from agents.supervised.classification import (
    LabelledText,
    accuracy,
    classification_steps,
    correlation,
    labels_of,
    read_labelled,
)
from agents.supervised.epochs import Epoch, best_epoch, by_epoch, reward_model_score
from agents.supervised.fitting import FitStep, Fitting
from agents.supervised.optimisers import adamw, muon
from agents.supervised.pretraining import held_out_loss, next_token_loss, pretraining_steps
from agents.supervised.schedules import (
    BatchRamp,
    Constant,
    Cosine,
    LinearDecay,
    learning_rate_factor,
)
from agents.supervised.sft import (
    Example,
    answer_loss,
    read_examples,
    sft_steps,
    whole_loss,
    with_language_modelling,
)
from agents.supervised.token_stream import StreamMixture, open_stream, write_stream
from textenv.frames import ChatTemplate

__all__ = [
    "BatchRamp",
    "ChatTemplate",
    "Constant",
    "Cosine",
    "Epoch",
    "Example",
    "FitStep",
    "Fitting",
    "LabelledText",
    "LinearDecay",
    "StreamMixture",
    "accuracy",
    "adamw",
    "answer_loss",
    "best_epoch",
    "by_epoch",
    "classification_steps",
    "correlation",
    "held_out_loss",
    "labels_of",
    "learning_rate_factor",
    "muon",
    "next_token_loss",
    "open_stream",
    "pretraining_steps",
    "read_examples",
    "read_labelled",
    "reward_model_score",
    "sft_steps",
    "whole_loss",
    "with_language_modelling",
    "write_stream",
]

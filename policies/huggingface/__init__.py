"""Language models of transformers as policies; nothing of transformers is imported before use."""

from policies.huggingface.encoder_decoder import EncoderDecoderPolicy
from policies.huggingface.partial import train_last_layers
from policies.huggingface.policy import HuggingFacePolicy

__all__ = ["EncoderDecoderPolicy", "HuggingFacePolicy", "train_last_layers"]

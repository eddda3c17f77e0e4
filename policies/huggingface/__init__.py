"""Language models of transformers as policies; nothing of transformers is imported before use."""

from policies.huggingface.causal import HuggingFacePolicy
from policies.huggingface.encoder_decoder import EncoderDecoderPolicy
from policies.huggingface.partial import train_last_layers

__all__ = ["EncoderDecoderPolicy", "HuggingFacePolicy", "train_last_layers"]

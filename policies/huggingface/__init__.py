"""Language models of transformers as policies; transformers is imported when one is made."""

from policies.huggingface.causal import HuggingFacePolicy
from policies.huggingface.encoder_decoder import EncoderDecoderPolicy
from policies.huggingface.partial import train_last_layers

__all__ = ["EncoderDecoderPolicy", "HuggingFacePolicy", "train_last_layers"]

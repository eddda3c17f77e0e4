"""Language models of transformers as policies; nothing of transformers is imported before use."""

from policies.huggingface.partial import train_last_layers
from policies.huggingface.policy import HuggingFacePolicy

__all__ = ["HuggingFacePolicy", "train_last_layers"]

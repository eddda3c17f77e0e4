"""The chat template of a policy: how dialogues that it has learned from are wrapped."""

from policies.huggingface import EncoderDecoderPolicy
from policies.policy import Policy
from textenv.frames import ChatTemplate, ModelTemplate


def template_of(policy: Policy) -> ChatTemplate | ModelTemplate | None:
    """The template of the dialogues that a policy has learned from; None if it has from none."""
    if texts := getattr(policy, "chat_template", None):
        return ChatTemplate(**texts)
    if isinstance(policy, EncoderDecoderPolicy):  # it reads a source, not a conversation
        return None
    published = getattr(policy, "transformers_tokenizer", None)
    return ModelTemplate.of(published) if getattr(published, "chat_template", None) else None

"""The chat template of a policy: how dialogues that it has learned from are wrapped."""

from dataclasses import asdict

from policies.huggingface import EncoderDecoderPolicy
from policies.huggingface.base import TransformersPolicy
from policies.policy import Policy
from policies.transformer_policy import TransformerPolicy
from textenv.frames import ChatTemplate, FrameArgument, ModelTemplate


def template_of(policy: Policy) -> ChatTemplate | ModelTemplate | None:
    """The template of the dialogues that a policy has learned from; None if it has from none."""
    if texts := getattr(policy, "chat_template", None):
        return ChatTemplate(**texts)
    if isinstance(policy, EncoderDecoderPolicy):  # it reads a source, not a conversation
        return None
    published = getattr(policy, "transformers_tokenizer", None)
    return ModelTemplate.of(published) if getattr(published, "chat_template", None) else None


def keep_template(policy: Policy, template: FrameArgument) -> None:
    """Keep the texts that wrap what a policy learns from, so that `template_of` finds them.

    Does nothing where there is none to keep: a model's own template is with its tokenizer.
    """
    if not isinstance(template, ChatTemplate):
        return
    if isinstance(policy, TransformerPolicy | TransformersPolicy):
        policy.chat_template = asdict(template)

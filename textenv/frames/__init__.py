"""Frames: how a turn and a reply are wrapped on their way into the ids.

Without a frame a reply's text goes behind the turn as it is. `ChatTemplate` spells the roles out in
texts of one's own. `ModelTemplate` is the chat template that a model was published with. Either
says how a conversation begins and what stands between two turns; ids are put behind ids, and
nothing is encoded again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeAlias, runtime_checkable

from textenv.errors import FrameError
from textenv.frames.base import Frame, Message
from textenv.frames.chat_template import ChatTemplate
from textenv.frames.model_template import ModelTemplate
from textenv.records import short
from textenv.tokenizers.base import Tokenizer
from textenv.tokenizers.huggingface import ChatTemplateText

CHAT = "chat"
"""Names the template that the tokenizer was published with."""


@runtime_checkable
class Template(Protocol):
    """What makes a frame for a tokenizer."""

    def frame(
        self, tokenizer: Tokenizer, tools: Any = (), stop_tokens: Sequence[int] | None = None
    ) -> Frame:
        """The frame; `tools` are the JSON schemas of functions that an assistant may call."""
        ...


FrameArgument: TypeAlias = Template | str | None
"""A `ChatTemplate`, a `ModelTemplate`, or "chat" for that of the tokenizer; None wraps nothing."""


def load_frame(
    given: FrameArgument,
    tokenizer: Tokenizer,
    tools: Any = (),
    stop_tokens: Sequence[int] | None = None,
) -> Frame | None:
    """The frame of an environment; None for none.

    Args:
        given: What a user gave.
        tokenizer: The environment's.
        tools: Schemas of functions that the assistant may call.
        stop_tokens: Ids that end a turn; None takes the tokenizer's.

    Raises:
        FrameError: It is no template, or the tokenizer has none.
    """
    if given is None:
        return None
    if given == CHAT:
        given = ModelTemplate.of(tokenizer)
    if isinstance(given, type) or not isinstance(given, Template):
        raise FrameError(
            f"frame is {short(given)}; it must be 'chat' for the tokenizer's own chat template, a "
            "textenv.frames.ChatTemplate() with texts of your own, or None"
        )
    return given.frame(tokenizer, tools, stop_tokens)


def saved_template(template: Template) -> dict[str, Any]:
    """A template of this module as JSON.

    Raises:
        FrameError: It is another one, of which it is not known how to save it.
    """
    if isinstance(template, ChatTemplate):
        return asdict(template)
    if isinstance(template, ModelTemplate):
        return {"jinja": template.text.jinja, "names": dict(template.text.names)}
    raise FrameError(
        f"{short(template)} cannot be saved: only a ChatTemplate and the template that a model "
        "was published with can"
    )


def template_from(saved: Mapping[str, Any]) -> ChatTemplate | ModelTemplate:
    """The template that `saved_template` gave."""
    if "jinja" in saved:
        return ModelTemplate(ChatTemplateText(**saved))
    return ChatTemplate(**saved)


__all__ = [
    "ChatTemplate",
    "Frame",
    "FrameArgument",
    "Message",
    "ModelTemplate",
    "Template",
    "load_frame",
    "saved_template",
    "template_from",
]

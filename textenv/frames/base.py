"""What an environment asks of a frame."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from textenv.errors import FrameError

Message: TypeAlias = Mapping[str, Any]
"""A role (system, user, assistant or tool) and a `content`, a text."""


class Frame(ABC):
    """How the messages of a conversation become ids, for one tokenizer.

    Ids are only ever put behind others: what the agent chose stays as it was chosen. What a message
    says is encoded without special tokens, whatever it spells.

    Attributes:
        template: What it was made from.
        end_of_turn: The id that ends the assistant's messages; None if there is none.
        role_tokens: Ids that open a message of somebody else; a policy that could choose them could
            speak for others. Environments forbid them.
    """

    template: Any = None
    end_of_turn: int | None = None
    role_tokens: Sequence[int] = ()

    @abstractmethod
    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids of what a conversation begins with, up to where the assistant's first token goes.

        Raises:
            FrameError: The messages cannot be framed.
        """

    @abstractmethod
    def bridge(self, texts: Sequence[str], role: str, stopped: bool) -> list[int]:
        """Ids between two turns of the assistant: the end of one, messages, the head of the next.

        Args:
            texts: The messages, all of one role.
            role: user, tool or system.
            stopped: Whether the turn before has its end, a stop token that was chosen.

        Raises:
            FrameError: There is no form for this role.
        """

    @abstractmethod
    def answer(self, text: str) -> list[int]:
        """Ids of what the assistant says behind an opening or a bridge, the turn's end included."""

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and which of them the assistant said, for learning.

        They are those that an environment's episode has: an opening, then answers with the end of
        each turn, and bridges between them.

        Raises:
            FrameError: The messages cannot be framed: there is no form for them, or no answer.
        """
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers or answers[0] == 0:
            raise FrameError(
                "the conversation has no answer to a message: its roles are "
                + ", ".join(str(message["role"]) for message in messages)
            )
        calls = [i for i in answers if messages[i].get("tool_calls")]
        if calls:
            raise FrameError(
                f"message {calls[0] + 1} has 'tool_calls', which cannot be learned: an answer is "
                "its text alone; write the call into the 'content', as the policy is to write it"
            )
        ids = self.opening(messages[: answers[0]])
        learned = [False] * len(ids)
        for place, following in zip(answers, [*answers[1:], None], strict=True):
            said = self.answer(messages[place]["content"])
            ids, learned = ids + said, learned + [True] * len(said)
            between = messages[place + 1 : following]
            if following is None:  # what follows the last answer is not answered any more
                break
            role = between[0]["role"] if between else None
            if role is None or any(message["role"] != role for message in between):
                roles = ", ".join(str(m["role"]) for m in between) or "nothing"
                raise FrameError(
                    f"message {place + 2}: between two answers stands {roles}; it must be one or "
                    "more messages of one role"
                )
            bridge = self.bridge([m["content"] for m in between], role, self.end_of_turn in said)
            ids, learned = ids + bridge, learned + [False] * len(bridge)
        return ids, learned

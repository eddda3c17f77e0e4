"""What an environment asks of a frame."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Message: TypeAlias = Mapping[str, Any]
"""A role (system, user, assistant or tool) and a `content`, a text."""


class Frame(ABC):
    """How the messages of a conversation become ids, for one tokenizer.

    Ids are only ever put behind others: what the agent chose stays as it was chosen. What a message
    says is encoded without special tokens, whatever it spells.

    Attributes:
        end_of_turn: The id that ends the assistant's messages; None if there is none.
        role_tokens: Ids that open a message of somebody else; a policy that could choose them could
            speak for others. Environments forbid them.
    """

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

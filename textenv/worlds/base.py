"""What a world is: `World` for one episode, `BatchedWorld` for all rows, and what they return."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

Opening: TypeAlias = str | Sequence[Mapping[str, Any]] | None
"""What an episode begins with: a text, messages with a `role` and a `content`, or the prompt."""


@dataclass(frozen=True)
class Reply:
    """What the world does after a turn: it says something, pays something, ends it, or all three.

    Attributes:
        text: What the world says; nothing is appended if the episode ends here. Several texts are
            several messages, such as the results of several tools. Without a frame they follow each
            other as they are.
        reward: Paid in the step in which the turn ended.
        terminated: The episode is over, and nothing is worth anything after it.
        truncated: The episode is cut short here; learners estimate what would have followed.
        role: Who speaks, for frames that tell speakers apart: user, tool or system.
        info: Anything else, for `infos["reply_info"]`.
    """

    text: str | Sequence[str] = ""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    role: str = "user"
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> Sequence[str]:
        """What the world says, message by message."""
        return [self.text] if isinstance(self.text, str) else self.text


@dataclass(frozen=True, eq=False)
class Turn:
    """What the agent has just said.

    Attributes:
        text: Its text, without the stop token, and up to a stop string.
        tokens: Its ids exactly as they were chosen, shape (k,), int64.
        number: Number of the turn in the episode, from 1.
        finish_reason: `"stop"` after a stop token or a stop string; `"length"` if the turn's budget
            or that of the text was spent.
        history: The turns and replies before this one, oldest first.
    """

    text: str
    tokens: NDArray[np.int64]
    number: int
    finish_reason: str
    history: "Sequence[Turn | Reply]" = field(default=(), repr=False)


class World(ABC):
    """What answers in one episode; made anew for each, without arguments.

        class Echo(World):
            def begin(self, record, rng):
                return "Say something."

            def reply(self, turn, rng):
                return Reply(f"You said {turn.text!r}.", reward=float(len(turn.text)))

    Attributes that JSON can hold are saved with the environment's state. A world with others has
    `state_dict` and `load_state_dict(state)`.

    Attributes:
        tools: JSON schemas of functions that the agent may call; a frame tells them in the opening.
        episode_reward: A reward of finished episodes that belongs to the world, or None; an
            attribute of the class, or of the function that makes worlds. It is added to the
            environment's with weight 1, and `Episode.world` is the world that it judges.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    episode_reward: ClassVar[Any] = None

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> Opening:
        """Begin an episode.

        Args:
            record: The drawn prompt's columns, and its text as `prompt`; secrets may be among them.
            rng: Random numbers of the draw: the same for all episodes of a group, so that answers
                to one opening can be compared.

        Returns:
            The text that the episode begins with, or with a frame the messages; None takes the
            prompt.
        """
        return None

    @abstractmethod
    def reply(self, turn: Turn, rng: np.random.Generator) -> Any:
        """What follows a turn: a `Reply`. May be `async`; replies of one step then run together.

        Args:
            turn: What the agent said. The last turn that the budget allows comes too, cut or not;
                its reply's text is not appended.
            rng: Random numbers that belong to this turn of this episode.
        """


class BatchedWorld(ABC):
    """One world for all rows; its methods take lists with one entry for each row that waits.

    It keeps what it remembers of an episode by the number of its row. `state_dict` and
    `load_state_dict(state)` save that; a world without them cannot be saved.

    Attributes:
        tools: As of `World`.
    """

    tools: Sequence[Mapping[str, Any]] = ()

    def begin(
        self,
        rows: Sequence[int],
        records: Sequence[Mapping[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Opening]:
        """Begin episodes in `rows`; see `World.begin`."""
        return [None] * len(rows)

    @abstractmethod
    def reply(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Any:
        """One `Reply` for each of `rows`; may be `async`."""

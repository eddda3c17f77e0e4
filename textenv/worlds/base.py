"""What a world is: `World` for one episode, `BatchedWorld` for all rows, and what they return."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textenv.errors import WorldError
from textenv.frames import Frame
from textenv.prompts import Prompt
from textenv.stop_strings import StopStrings
from textenv.tokenizers import Tokenizer, decode_answer

Opening: TypeAlias = str | Sequence[Mapping[str, Any]] | Prompt | None
"""What an episode begins with: a text, messages with a `role` and a `content`; None is the prompt.

A `Prompt` may have `tokens`, ids that are taken exactly as they are, and columns, which are added
to the episode's record.
"""


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
        info: Anything else, for `infos["reply_info"]`. It is saved as JSON holds it: arrays and
            tuples as lists, and what JSON cannot hold as its `repr`.
        tokens: What it says as ids, from a world that has chosen them, shape (k,); they are
            appended exactly as they are, without a frame, and `text` is for people and rewards.
            None encodes the text.
    """

    text: str | Sequence[str] = ""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    role: str = "user"
    info: Mapping[str, Any] = field(default_factory=dict)
    tokens: ArrayLike | None = field(default=None, compare=False)  # arrays have no one truth

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
        spent: Whether the text's budget is spent, so that nothing can follow.
        history: The turns and replies before this one, oldest first.
    """

    text: str
    tokens: NDArray[np.int64]
    number: int
    finish_reason: str
    spent: bool = False
    history: "Sequence[Turn | Reply]" = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class TurnRules:
    """What holds for a turn of the agent, for worlds in which somebody else keeps to it too.

    Attributes:
        tokenizer: Reads and writes the texts.
        is_stop: True at tokens that end a turn, shape (V,), bool.
        stop_strings: Texts that end a turn.
        allowed: Which tokens may be chosen, shape (2, V), bool: in row 0 while the turn is shorter
            than `min_tokens`, in row 1 from then on.
        min_tokens: Length from which a turn may be ended by a stop token or a stop string.
        max_tokens: Token budget of a turn; None sets no limit.
        budget: Tokens behind the opening, of all turns and replies together.
        rows: Number of rows.
        length: Tokens of an observation.
        frame: How replies are wrapped; None if they are not.
    """

    tokenizer: Tokenizer
    is_stop: NDArray[np.bool_]
    stop_strings: StopStrings
    allowed: NDArray[np.bool_]
    min_tokens: int
    max_tokens: int | None
    budget: int
    rows: int
    length: int
    frame: Frame | None = None

    def ends(self, before: Sequence[int], said: Sequence[int]) -> bool:
        """Whether a stop token, a stop string or the budget ends a turn here.

        Args:
            before: Ids in front of the turn.
            said: Ids of the turn; not empty.
        """
        if self.is_stop[said[-1]] or (self.max_tokens is not None and len(said) >= self.max_tokens):
            return True
        return self._until_string(before, said) is not None

    def text(self, before: Sequence[int], said: Sequence[int]) -> str:
        """What a turn that has ended says, without its stop token or string; see `ends`."""
        if self.is_stop[said[-1]]:
            return decode_answer(self.tokenizer, before, said[:-1])
        until = self._until_string(before, said)
        return decode_answer(self.tokenizer, before, said) if until is None else until

    def _until_string(self, before: Sequence[int], said: Sequence[int]) -> str | None:
        if not self.stop_strings or len(said) < self.min_tokens:
            return None
        return self.stop_strings.completed(before, said)


class World(ABC):
    """What answers in one episode; made anew for each, without arguments.

        class Echo(World):
            def begin(self, record, rng):
                return "Say something."

            def reply(self, turn, rng):
                return Reply(f"You said {turn.text!r}.", reward=float(len(turn.text)))

    Attributes that JSON can hold are saved with the environment's state. A world with others has
    `state_dict` and `load_state_dict(state)`, or is replayed: a new one is begun and told the same
    turns. All that it does must then follow from its record, the turns and the generators.

    Attributes:
        tools: JSON schemas of functions that the agent may call; a frame tells them in the opening.
        replayable: False for a world that may not be told turns again, such as one that acts on a
            real server; one that is neither saved nor replayed cannot be resumed.
        episode_reward: A reward of finished episodes that belongs to the world, or None; an
            attribute of the class, or of the function that makes worlds. It is added to the
            environment's with weight 1, and `Episode.world` is the world that it judges.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    replayable: bool = True
    episode_reward: ClassVar[Any] = None

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> Opening:
        """Begin an episode.

        If it raises, `reset` does too. In the middle of a run only its own row is held up: it is
        begun again, with the same record and random numbers, at every step until it begins.

        Args:
            record: The drawn prompt's columns, and as `prompt` its text, or its messages if it has
                them; secrets may be among the columns.
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

    It keeps what it remembers of an episode by the number of its row, which may be above
    `num_envs`: another environment that plays on from starts has rows of its own. `state_dict` and
    `load_state_dict(state)` save what it remembers, `save(row)` and `restore(row, state)` that of
    one row; a world without them is replayed, as in `World`.

    Attributes:
        tools: As of `World`.
        replayable: As of `World`.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    replayable: bool = True

    def join(self, rules: TurnRules) -> None:  # noqa: B027  (most worlds need not know)
        """Called once, when an environment takes this world, with what holds there."""

    def another(self) -> "BatchedWorld":
        """The world of another environment with the same arguments, which plays on from starts.

        By default it is this one: the other environment's rows have other numbers. Override it in a
        world that knows how many rows there are.
        """
        return self

    def save(self, row: int) -> Any:
        """The state of one row, for `restore` to put into any; None if it is to be replayed."""
        return None

    def restore(self, row: int, state: Any) -> None:
        """Put a state that `save` gave into a row.

        Raises:
            WorldError: This world saves no rows.
        """
        raise WorldError(f"{type(self).__name__} has save(row), and lacks restore(row, state)")

    def begin(
        self,
        rows: Sequence[int],
        records: Sequence[Mapping[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Opening | BaseException]:
        """Begin episodes in `rows`; see `World.begin`.

        An exception in a row's place says that its episode cannot begin.
        """
        return [None] * len(rows)

    @abstractmethod
    def reply(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Any:
        """One `Reply` for each of `rows`, or the exception that failed it; may be `async`."""

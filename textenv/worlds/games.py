"""Games for two: their rules, and one play of a game as ids.

`TwoPlayerGame` is the rules, in words. `Play` keeps what each seat has read, as exact ids: what a
seat chose stands there as it was chosen. Who plays a seat is none of its business: in training the
learner has one and `agents.partners` the other; `textenv.testing.games` tries all moves of both.
"""

import copy
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from textenv.errors import WORLD_FAILURES, WorldError
from textenv.records import short
from textenv.tokenizers import encode_answer, encode_prompt
from textenv.worlds.base import TurnRules
from textenv.worlds.states import restored, state_of

ToEach: TypeAlias = str | tuple[str, str]
"""A text that both seats read, or what each of them reads."""


@dataclass(frozen=True)
class Outcome:
    """What follows a move.

    Attributes:
        text: What both seats read next, or a text for each.
        rewards: What seat 0 and seat 1 get for it.
        over: The game is over.
        to_move: Who moves next; the other seat if None.
        hidden: The other seat does not read the move's own tokens. So moves can be simultaneous:
            hide the first, and say after the second what both were.
    """

    text: ToEach = ""
    rewards: tuple[float, float] = (0.0, 0.0)
    over: bool = False
    to_move: int | None = None
    hidden: bool = False


class TwoPlayerGame(ABC):
    """The rules of a game for seats 0 and 1; made anew for each episode, without arguments.

        class Nim(TwoPlayerGame):
            def begin(self, record, rng):
                self.left = int(record["prompt"])   # the prompt, such as "7", opens the game

            def move(self, seat, text, rng):
                taken = int(text) if text.isdecimal() else 0
                won, lost = ((1.0, -1.0), (-1.0, 1.0))[:: 1 - 2 * seat]
                if not 1 <= taken <= min(3, self.left):
                    return Outcome(rewards=lost, over=True)
                self.left -= taken
                return Outcome(rewards=won, over=True) if self.left == 0 else Outcome(",")

    Seat 0 moves first. Attributes that JSON can hold are saved with the environment's state. A game
    with others has `state_dict` and `load_state_dict(state)`.
    """

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> ToEach | None:
        """Begin a game.

        Args:
            record: The drawn prompt's columns, and its text as `prompt`.
            rng: Random numbers of the draw, the same for all episodes of a group.

        Returns:
            What both seats read first, or a text for each; None takes the prompt.
        """
        return None

    @abstractmethod
    def move(self, seat: int, text: str, rng: np.random.Generator) -> Outcome:
        """What follows a move.

        Args:
            seat: Who moves.
            text: What that seat says. It may be anything; what an illegal move costs is a rule of
                the game.
            rng: Random numbers that belong to this turn of this episode.
        """


class Play:
    """One play of a game, from the opening to the end.

    Args:
        game: The rules; `begin` is called by `opened`.
        rules: What holds for a turn of either seat.

    Attributes:
        views: What each seat has read so far: its own and the other's tokens, and the game's words.
        openings: How many of these tokens the budget does not count, for each seat.
        to_move: Who moves next.
        rewards: What each seat has got so far.
        over: Whether the game is over.
    """

    def __init__(self, game: TwoPlayerGame, rules: TurnRules):
        self.game, self.rules = game, rules
        self.views: tuple[list[int], list[int]] = ([], [])
        self.openings = (0, 0)
        self.to_move, self.rewards, self.over = 0, (0.0, 0.0), False

    @classmethod
    def opened(
        cls,
        make: Callable[[], TwoPlayerGame],
        rules: TurnRules,
        record: Mapping[str, Any],
        rng: np.random.Generator,
    ) -> "Play":
        """A play at its first move.

        Raises:
            WorldError: `begin` returned something else than a text, two, or None.
            TokenizerError: The vocabulary lacks a character of the opening.
        """
        play = cls(make(), rules)
        opening = play.game.begin(record, rng)
        texts = play._to_each(record["prompt"] if opening is None else opening, "begin")
        for view, text in zip(play.views, texts, strict=True):
            view += encode_prompt(rules.tokenizer, text)
        play.count_from_here()
        return play

    def count_from_here(self) -> None:
        """The budget counts what comes behind what each seat has read by now."""
        self.openings = (len(self.views[0]), len(self.views[1]))

    def room(self, seat: int) -> int:
        """Tokens that a seat may still read or choose."""
        view = self.views[seat]
        behind = self.rules.budget - len(view) + self.openings[seat]
        return min(behind, self.rules.length - len(view))

    def said(self, tokens: Sequence[int], rng: np.random.Generator) -> None:
        """The seat whose turn it is has said `tokens`, a stop token included.

        Raises:
            WorldError: The game raised, or returned something else than an `Outcome`, or one that
                cannot be.
            TokenizerError: The vocabulary lacks a character of what the game says.
        """
        seat, rules = self.to_move, self.rules
        text = rules.text(self.views[seat], tokens)
        try:
            given = self.game.move(seat, text, rng)
        except WORLD_FAILURES as error:
            name = f"{type(self.game).__name__}.move"
            raise WorldError(f"{name} raised {type(error).__name__}: {error}") from error
        outcome = self._checked(given)
        for reader, told in enumerate(self._to_each(outcome.text, "move")):
            if reader == seat or not outcome.hidden:
                self.views[reader].extend(tokens)
            self.views[reader].extend(encode_answer(rules.tokenizer, told))
        first, second = self.rewards
        self.rewards = (first + outcome.rewards[0], second + outcome.rewards[1])
        self.over = outcome.over
        self.to_move = 1 - seat if outcome.to_move is None else outcome.to_move

    def state_dict(self) -> dict[str, Any]:
        """The state as plain types.

        Raises:
            WorldError: The game has attributes that JSON cannot hold.
        """
        return {
            "game": state_of(self.game),
            "views": [list(view) for view in self.views],
            "openings": list(self.openings),
            "to_move": self.to_move,
            "rewards": list(self.rewards),
            "over": self.over,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` gave."""
        restored(self.game, copy.deepcopy(state["game"]))  # others may be restored from it
        self.views = (list(state["views"][0]), list(state["views"][1]))
        self.openings = (state["openings"][0], state["openings"][1])
        self.rewards = (state["rewards"][0], state["rewards"][1])
        self.to_move, self.over = state["to_move"], state["over"]

    def _to_each(self, text: Any, method: str) -> tuple[str, str]:
        both = (text, text) if isinstance(text, str) else text
        if isinstance(both, tuple) and [type(one) for one in both] == [str, str]:
            return both
        raise WorldError(
            f"{type(self.game).__name__}.{method} gave the text {short(text)}: it must be a str "
            "that both seats read, or a tuple of two"
        )

    def _checked(self, outcome: Any) -> Outcome:
        name = f"{type(self.game).__name__}.move"
        if not isinstance(outcome, Outcome):
            raise WorldError(f"{name} returned {short(outcome)}, not an Outcome")
        paid = outcome.rewards
        if not isinstance(paid, tuple) or len(paid) != 2 or not all(map(_is_finite, paid)):
            raise WorldError(
                f"{name} gave the rewards {short(paid)}; they are two finite numbers, those of "
                "seat 0 and of seat 1"
            )
        if outcome.to_move not in (None, 0, 1):
            raise WorldError(f"{name} gave to_move {short(outcome.to_move)}; seats are 0 and 1")
        return outcome


def _is_finite(number: Any) -> bool:
    return isinstance(number, numbers.Real) and math.isfinite(number)

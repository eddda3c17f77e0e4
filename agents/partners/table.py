"""A row's game: who sits where, what the agent has been told and paid, what the partner says."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies import Policy
from textenv.worlds import Play


@dataclass
class Table:
    """A row's play, and who sits where.

    Attributes:
        play: The game so far.
        seat: The agent's.
        number: Which policy of a pool has the other seat; None is the present one, or the only one.
        policy: That policy.
        read: Tokens that the agent has been told of its view.
        paid: What the agent has been paid.
        draw: Names the draw that the game began with; a group shares it.
        moves: The turns of the partner so far, each by its ids.
        opens: How many of them came before the agent's first.
    """

    play: Play
    seat: int
    number: int | None
    policy: Policy
    read: int = 0
    paid: float = 0.0
    draw: str = ""
    moves: list[list[int]] = field(default_factory=list)
    opens: int = 0

    @property
    def partner_moves(self) -> bool:
        """Whether the partner is to say something."""
        return not self.play.over and self.play.to_move != self.seat

    @property
    def room(self) -> int:
        """Tokens that the partner may say."""
        return self.play.room(1 - self.seat)

    @property
    def view(self) -> list[int]:
        """What the agent has read."""
        return self.play.views[self.seat]

    def said(self, tokens: list[int], rng: np.random.Generator) -> None:
        """The partner has said `tokens`."""
        self.play.said(tokens, rng)
        self.moves.append(tokens)

    def news(self) -> list[int]:
        """Ids that the agent has not read yet; from now on it has."""
        begin, self.read = self.read, len(self.view)
        return self.view[begin:]

    def pay(self) -> float:
        """What the agent has got and was not paid yet; from now on it was."""
        got = self.play.rewards[self.seat]
        owed, self.paid = got - self.paid, got
        return owed


@dataclass
class PartnerTurn:
    """A turn that the partner is in the middle of.

    Attributes:
        text: What it has read and said, padded, shape (length of an observation,), int64.
        view: The tokens that it has read.
        room: How many it may say.
    """

    row: int
    table: Table
    rng: np.random.Generator
    text: NDArray[np.int64]
    view: list[int]
    room: int
    tokens: list[int] = field(default_factory=list)

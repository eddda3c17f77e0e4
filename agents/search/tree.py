"""The tree of one prompt: beginnings of answers, and the moves that go on from each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.search.answers import Scored
from agents.search.budget import Spent
from agents.search.reading import Text
from textenv.starts import Start


@dataclass(eq=False)
class Node:
    """A beginning of an answer.

    Attributes:
        answer: Its ids.
        logprob: Log-probability of these ids under the policy, in the moves that were looked at.
        ended: Whether it is a finished answer.
        value: What an answer is expected to earn from here on, or what it earns if it has ended;
            None before the leaf was visited.
        moves: What may follow, each one token or a segment; empty before the leaf was visited.
        priors: Probability of each move, shape (m,), float64; they sum to 1.
        children: The nodes behind the moves, as far as they were made.
        visits: How often each move was taken, shape (m,), int64.
        totals: Sum of the values that came back through each move, shape (m,), float64.
        bests: The largest of them, shape (m,), float64; 0 where nothing did.
    """

    answer: Text
    logprob: float = 0.0
    ended: bool = False
    value: float | None = None
    moves: Sequence[Text] = ()
    priors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    children: dict[int, "Node"] = field(default_factory=dict)
    visits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    totals: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    bests: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def expand(self, moves: Sequence[Text], priors: NDArray[np.float64]) -> None:
        """Note what may follow."""
        self.moves, self.priors = moves, priors
        self.visits = np.zeros(len(moves), dtype=np.int64)
        self.totals, self.bests = np.zeros(len(moves)), np.zeros(len(moves))

    def come_back(self, move: int, value: float) -> None:
        """Note a value that came back through a move."""
        self.bests[move] = max(self.bests[move], value) if self.visits[move] else value
        self.visits[move] += 1
        self.totals[move] += value

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of what came back through each move, shape (m,); 0 where nothing did."""
        return self.totals / np.maximum(self.visits, 1)


class Tree(ABC):
    """What is known of the answers to one prompt, and which leaves to visit next.

    Args:
        start: Where answers begin.
        prompt: The ids that the policy reads there.
        generator: Source of its random numbers.

    Attributes:
        root: The empty answer.
        found: What each finished answer that was met earns.
        spent: What was spent.
    """

    def __init__(self, start: Start, prompt: Text, generator: np.random.Generator):
        self.start, self.prompt, self.generator = start, prompt, generator
        self.root = Node(())
        self.found: dict[Text, Scored] = {}
        self.spent = Spent()

    @abstractmethod
    def select(self, count: int) -> list[Node]:
        """At most `count` leaves to visit together; none if there is nothing left to look at."""

    @abstractmethod
    def receive(self, leaves: Sequence[Node]) -> None:
        """Take up the values of the leaves that `select` gave, in the same order."""

    @property
    def best(self) -> Text | None:
        """The answer that earned most; the first one of those that earned alike."""
        return max(self.found, key=lambda answer: self.found[answer].score, default=None)

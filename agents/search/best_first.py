"""Best-first search over the beginnings of answers."""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agents.optimisation.bounds import Checked, bounded
from agents.search.leaves import ONE_CONTINUATION, LeafValue
from agents.search.moves import LIKELIEST, Branching
from agents.search.reading import Text
from agents.search.tree import Node, Tree
from textenv.starts import Start


@dataclass(frozen=True)
class BestFirst(Checked):
    """Goes on from the beginning of the highest value, wherever it is (Koh et al., 2024).

    All moves behind the best beginning are visited; those that do not end an answer wait in a queue
    by their values, and at equal values by their probability. "Tree Search for Language Model
    Agents", arXiv:2407.01476. With exact values it goes straight to the best answer; with noisy
    ones it follows what was overestimated, where `MCTS` averages.

    Attributes:
        branching: What a move is.
        leaf: How a beginning is judged.
        leaves: Leaves of one tree that are visited together.
    """

    branching: Branching = LIKELIEST
    leaf: LeafValue = ONE_CONTINUATION
    leaves: int = bounded(8, minimum=1)
    returns: ClassVar[bool] = False

    def tree(self, start: Start, prompt: Text, generator: np.random.Generator) -> "BestFirstTree":
        """The tree of a prompt, of which nothing is known yet."""
        return BestFirstTree(start, prompt, generator)


class BestFirstTree(Tree):
    """The tree of one prompt; see `BestFirst`."""

    def __init__(self, start: Start, prompt: Text, generator: np.random.Generator):
        super().__init__(start, prompt, generator)
        self._queue: list[tuple[float, float, int, Node]] = []
        self._next = deque([self.root])
        self._met = 0

    def select(self, count: int) -> list[Node]:
        """See `Tree`."""
        while len(self._next) < count and self._queue:
            node = heapq.heappop(self._queue)[-1]
            self._next.extend(node.children.values())
        return [self._next.popleft() for _ in range(min(count, len(self._next)))]

    def receive(self, leaves: Sequence[Node]) -> None:
        """See `Tree`."""
        for leaf in leaves:
            assert leaf.value is not None
            if not leaf.ended:
                self._met += 1
                heapq.heappush(self._queue, (-leaf.value, -leaf.logprob, self._met, leaf))

"""Monte Carlo tree search with PUCT over the beginnings of answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.optimisation.bounds import Checked, bounded
from agents.search.leaves import ONE_CONTINUATION, LeafValue
from agents.search.moves import LIKELIEST, Branching
from agents.search.reading import Text
from agents.search.tree import Node, Tree
from textenv.starts import Start

Floats = NDArray[np.float64]


def puct(
    priors: ArrayLike,
    visits: ArrayLike,
    values: ArrayLike,
    c_puct: float = 1.25,
    c_base: float = 19652.0,
) -> Floats:
    """How much each of m moves asks to be looked at, shape (m,).

        Q(a) + P(a) sqrt(N) / (1 + N(a)) (c_puct + log((N + c_base + 1) / c_base))

    with N = 1 + sum of N(b), the visits of the place itself: Silver et al., "A general
    reinforcement learning algorithm that masters chess, shogi, and Go through self-play"
    (AlphaZero, 2018); equation 2 of Schrittwieser et al., "Mastering Atari, Go, chess and shogi by
    planning with a learned model" (MuZero, 2020), arXiv:1911.08265. N counts the visit that
    expanded the place, as the pseudocode of both does: the first choice then goes by the priors.

    Args:
        priors: P, the policy's probabilities, shape (m,).
        visits: N(a), shape (m,).
        values: Q, in [0, 1] if c_puct is to mean the same everywhere; see `MinMax`.
        c_puct: Weight of the priors.
        c_base: Visits at which that weight has grown by log 2.
    """
    counts = np.asarray(visits, dtype=np.float64)
    total = 1.0 + counts.sum()
    weight = c_puct + np.log((total + c_base + 1) / c_base)
    return np.asarray(values) + weight * np.asarray(priors) * np.sqrt(total) / (1 + counts)


class MinMax:
    """Brings values into [0, 1] by the least and the largest one met in a tree (MuZero, app. B).

    Rewards then need no scale. While there are not two different values all are 0.
    """

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def meet(self, value: float) -> None:
        """Note a value."""
        self.low, self.high = min(self.low, value), max(self.high, value)

    def __call__(self, values: Floats) -> Floats:
        """The values in [0, 1]."""
        if self.high <= self.low:
            return np.zeros_like(values)
        return (values - self.low) / (self.high - self.low)


def mean(node: Node) -> Floats:
    """Q as in AlphaZero: the mean of what came back through each move, shape (m,)."""
    return node.means


def best(node: Node) -> Floats:
    """Q where one answer is looked for and rewards have no noise: the best that came back, (m,).

    Zhang et al., "Planning with Large Language Models for Code Generation" (PG-TD, 2023),
    arXiv:2303.05510.
    """
    return node.bests


@dataclass(frozen=True)
class MCTS(Checked):
    """Monte Carlo tree search with PUCT (AlphaZero), with values scaled as in MuZero.

    A step goes down from the root by `puct`, visits the leaf that it comes to, and adds the leaf's
    value to all moves on the way. Several leaves are visited together: a way that is under way
    counts as a visit that brought the worst value so far (virtual loss; Chaslot et al., "Parallel
    Monte-Carlo Tree Search", 2008), so that the others take other ways.

    Use it where beginnings tell how an answer will end, and prefer `BestFirst` where they tell it
    almost surely. No answer is asked for twice: what is known to its end is left. Left out:
    Dirichlet noise at the root, and a temperature for the move that is played.

    Attributes:
        c_puct: Weight of the policy's probabilities against values in [0, 1]; more looks at more
            answers, less goes deeper into what looked best.
        branching: What a move is.
        leaf: How a leaf is judged.
        backup: What a move is worth, from what came back through it: `mean` or `best`.
        leaves: Leaves of one tree that are visited together; more are quicker and less informed.
        returns: Whether finished answers are visited again, as in AlphaZero. It costs nothing but
            expansions, and is for visit counts that are to be learned from (`ExpertIteration`).
    """

    c_puct: float = bounded(1.25, minimum=0)
    branching: Branching = LIKELIEST
    leaf: LeafValue = ONE_CONTINUATION
    backup: Callable[[Node], Floats] = mean
    leaves: int = bounded(8, minimum=1)
    returns: bool = False

    def tree(self, start: Start, prompt: Text, generator: np.random.Generator) -> "MCTSTree":
        """The tree of a prompt, of which nothing is known yet."""
        return MCTSTree(self, start, prompt, generator)


class MCTSTree(Tree):
    """The tree of one prompt; see `MCTS`."""

    def __init__(self, how: MCTS, start: Start, prompt: Text, generator: np.random.Generator):
        super().__init__(start, prompt, generator)
        self.how, self.scale = how, MinMax()
        self._known: dict[Node, NDArray[np.bool_]] = {}  # moves of which all is known
        self._under_way: dict[Node, NDArray[np.int64]] = {}
        self._ways: list[list[tuple[Node, int]]] = []

    def select(self, count: int) -> list[Node]:
        """See `Tree`."""
        self._ways = []
        leaves: list[Node] = []
        shut: list[tuple[Node, int]] = []
        if self.root.value is None:
            self._ways.append([])
            return [self.root][:count]
        while len(leaves) < count:
            way, leaf = self._descend()
            if leaf is None:
                if not way:  # every move of the root leads to what is known or under way
                    break
                shut.append(way[-1])  # only while this batch is under way
            elif leaf.value is not None:  # a finished answer, visited again
                self.spent.visits += 1
                count -= 1
                self._give_back(way, leaf.value)
                continue
            else:
                shut.append(way[-1])
                self._ways.append(way)
                leaves.append(leaf)
                for node, move in way:
                    self._under_way[node][move] += 1
            node, move = shut[-1]
            self._known[node][move] = True
        for node, move in shut:
            self._known[node][move] = False
        return leaves

    def receive(self, leaves: Sequence[Node]) -> None:
        """See `Tree`."""
        for way, leaf in zip(self._ways, leaves, strict=True):
            assert leaf.value is not None
            for node, move in way:
                self._under_way[node][move] -= 1
            self._give_back(way, leaf.value)
            self._known[leaf] = np.zeros(len(leaf.moves), dtype=bool)
            self._under_way[leaf] = np.zeros(len(leaf.moves), dtype=np.int64)
            if leaf.ended and not self.how.returns:
                self._close(way)

    def _descend(self) -> tuple[list[tuple[Node, int]], Node | None]:
        """The way to a leaf; without one where every move is known or under way."""
        way: list[tuple[Node, int]] = []
        node = self.root
        while node.value is not None and not node.ended:
            open_moves = ~self._known[node]
            if not open_moves.any():
                return way, None
            asked = np.where(open_moves, self._asked(node), -np.inf)
            move = int(asked.argmax())
            way.append((node, move))
            node = node.children[move]
        return way, node

    def _asked(self, node: Node) -> Floats:
        """PUCT of the moves, with those that are under way as visits that brought the worst."""
        waiting = self._under_way[node]
        visits = node.visits + waiting
        # In [0, 1] the worst value is 0, so a visit under way only lowers the weight of the others.
        values = self.scale(self.how.backup(node)) * node.visits / np.maximum(visits, 1)
        return puct(node.priors, visits, values, self.how.c_puct)

    def _give_back(self, way: Sequence[tuple[Node, int]], value: float) -> None:
        for node, move in reversed(way):
            node.come_back(move, value)
            self.scale.meet(float(self.how.backup(node)[move]))

    def _close(self, way: Sequence[tuple[Node, int]]) -> None:
        """Note that all is known behind the last move of a way, and perhaps behind others."""
        for node, move in reversed(way):
            self._known[node][move] = True
            if not self._known[node].all():
                break

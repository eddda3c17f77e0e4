"""Exact results for games so small that all of their plays can be listed.

A policy is as strong as its strategy is hard to exploit. `GameTree` lists every play of a game in
which both seats may say anything that the rules of a turn allow. `best_response` is what the best
player of one seat gets against a given strategy, and `exploitability` is 0 for an equilibrium
alone. A strategy is an array of probabilities, from any framework:

    tree = GameTree(Nim, rules, records=[{"prompt": "7"}])
    strategy = probabilities(tree.views, tree.turns)      # (n, m), each row sums to 1
    exploitability(tree, strategy)

Not covered: games that draw random numbers after the opening, and seats that forget what they have
read.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import TextEnvError, WorldError
from textenv.worlds.base import TurnRules
from textenv.worlds.games import Play, TwoPlayerGame

TOO_MANY_PLAYS = 200_000
"""A tree with more nodes than this is not listed."""

Floats = NDArray[np.float64]


class TooManyPlaysError(TextEnvError, ValueError):
    """A game has too many plays to list them all."""


@dataclass(frozen=True)
class _Node:
    """A place in a play.

    Attributes:
        seat: Who moves; -1 at the end.
        view: Number of what that seat has read, among `GameTree.views`; -1 at the end.
        after: What follows each turn of `GameTree.turns`.
        rewards: What both have got; read at the end alone.
    """

    seat: int
    view: int
    after: "tuple[_Node, ...]"
    rewards: tuple[float, float]


class GameTree:
    """All plays of a game.

    Args:
        game: Makes the rules of a play.
        rules: What holds for a turn; that of an environment is `TwoPlayers.rules`.
        records: One play begins with each of these, all equally likely.
        seed: Seed of the numbers that `begin` gets, the same for each record.

    Attributes:
        turns: Every turn that may be said, as ids.
        views: What a seat has read wherever it may move, as ids; the same for both seats if they
            read the same.

    Raises:
        TooManyPlaysError: There are more than `TOO_MANY_PLAYS` nodes, or no limit to a turn.
        WorldError: The game cannot be played, or draws random numbers after its opening.
    """

    def __init__(
        self,
        game: Callable[[], TwoPlayerGame],
        rules: TurnRules,
        records: Sequence[Mapping[str, Any]],
        seed: int = 0,
    ):
        if not records:
            raise ValueError("there is no record to begin a play with")
        self.turns = _turns(rules)
        self._numbers: dict[tuple[int, ...], int] = {}
        self._nodes = 0
        plays = [Play.opened(game, rules, r, np.random.default_rng(seed)) for r in records]
        self.roots = tuple(self._node(play) for play in plays)
        self.views = list(self._numbers)

    def _node(self, play: Play) -> _Node:
        self._nodes += 1
        if self._nodes > TOO_MANY_PLAYS:
            raise TooManyPlaysError(
                f"the game has more than {TOO_MANY_PLAYS} places in all of its plays: use fewer "
                "tokens, shorter turns, or a smaller game"
            )
        seat = play.to_move
        # A play is cut where there is no room for a turn.
        if play.over or play.room(seat) < max(map(len, self.turns)):
            return _Node(-1, -1, (), play.rewards)
        view = self._numbers.setdefault(tuple(play.views[seat]), len(self._numbers))
        after = []
        for turn in self.turns:
            # The rules never change, so that they are not copied with each play.
            following = copy.deepcopy(play, {id(play.rules): play.rules})
            following.said(turn, _NO_CHANCE)  # type: ignore[arg-type]
            after.append(self._node(following))
        return _Node(seat, view, tuple(after), play.rewards)


def best_response(tree: GameTree, strategy: Floats, seat: int) -> float:
    """What the best player of `seat` gets, on average, if the other seat plays `strategy`.

    Args:
        tree: The game.
        strategy: Probability of each turn for each view, shape (n, m).
        seat: Whose reward is maximised, among all strategies that know what this seat reads.
    """
    return _best(tree, strategy, seat, [(root, 1 / len(tree.roots)) for root in tree.roots])


def value(tree: GameTree, strategy: Floats, seat: int) -> float:
    """What `seat` gets, on average, if both seats play `strategy`, shape (n, m)."""

    def of(node: _Node) -> float:
        if node.seat < 0:
            return node.rewards[seat]
        return sum(
            float(p) * of(after) for p, after in zip(strategy[node.view], node.after, strict=True)
        )

    return sum(map(of, tree.roots)) / len(tree.roots)


def exploitability(tree: GameTree, strategy: Floats) -> float:
    """How much a best response gains over `strategy`, on average over both seats; never negative.

        sum over seats i of (max over s of u_i(s, strategy) - u_i(strategy, strategy)) / 2

    It is 0 if and only if the strategy, in both seats, is a Nash equilibrium. In a zero-sum game
    the two values cancel. Lanctot et al. (2017), arXiv:1711.00832, call the sum NashConv.

    Args:
        tree: The game.
        strategy: Probability of each turn for each view, shape (n, m), float64.

    Raises:
        ValueError: The strategy has another shape, or a row that is no distribution.
    """
    shape = (len(tree.views), len(tree.turns))
    if strategy.shape != shape:
        raise ValueError(f"the strategy has shape {strategy.shape}, the game's is {shape}")
    if (strategy < 0).any() or np.abs(strategy.sum(1) - 1).max() > 1e-4:
        raise ValueError("a row of the strategy is no distribution: it must sum to 1")
    gains = [best_response(tree, strategy, i) - value(tree, strategy, i) for i in (0, 1)]
    return sum(gains) / 2


def _best(
    tree: GameTree, strategy: Floats, seat: int, nodes: Sequence[tuple[_Node, float]]
) -> float:
    """The best of the nodes' plays together, each with the probability that others have given it.

    Nodes that the seat cannot tell apart get one turn. Whatever it does later, it can tell plays
    apart whose views have differed once; so the views of a level are separate problems.
    """
    waiting, total = list(nodes), 0.0
    own: dict[int, list[tuple[_Node, float]]] = {}
    while waiting:
        node, weight = waiting.pop()
        if node.seat < 0:
            total += weight * node.rewards[seat]
        elif node.seat == seat:
            own.setdefault(node.view, []).append((node, weight))
        else:
            waiting += [
                (after, weight * float(p))
                for p, after in zip(strategy[node.view], node.after, strict=True)
                if p > 0
            ]
    for alike in own.values():
        total += max(
            _best(tree, strategy, seat, [(node.after[turn], weight) for node, weight in alike])
            for turn in range(len(tree.turns))
        )
    return total


def _turns(rules: TurnRules) -> list[tuple[int, ...]]:
    """Every turn that may be said, to where a stop or the budget ends it."""
    if rules.max_tokens is None:
        raise TooManyPlaysError("turns have no limit: make the environment with max_turn_tokens")
    found: list[tuple[int, ...]] = []
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        begun = waiting.pop()
        allowed = rules.allowed[int(len(begun) >= rules.min_tokens)]
        for token in np.flatnonzero(allowed).tolist():
            turn = (*begun, token)
            (found if rules.ends((), turn) else waiting).append(turn)
        if len(found) + len(waiting) > TOO_MANY_PLAYS:
            raise TooManyPlaysError(f"there are more than {TOO_MANY_PLAYS} turns")
    return sorted(found)


class _NoChance:
    """Takes the place of random numbers in a game whose plays are listed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        raise WorldError(
            f"the game draws random numbers (rng.{name}) after its opening: plays are listed for "
            "games in which the players alone decide"
        )


_NO_CHANCE = _NoChance()

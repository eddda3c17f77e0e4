"""Best responses and exploitability against what is known of small games."""

import itertools

import numpy as np
import pytest
from small_games import DEALS, Kuhn, Nim, Pennies, best_in_nim, rules_of

from textenv.errors import WorldError
from textenv.testing import games
from textenv.testing.games import GameTree, best_response, exploitability, value
from textenv.worlds import Outcome, TwoPlayerGame


def tree_of(game, alphabet, may_say, records=({"prompt": ""},), **rules):
    return GameTree(game, rules_of(alphabet, may_say, **rules), records)


def poker():
    return tree_of(Kuhn, "123pb", "pb", DEALS)


def uniform(tree):
    return np.full((len(tree.views), len(tree.turns)), 1 / len(tree.turns))


def test_pennies_by_hand():
    tree = tree_of(Pennies, "ht=#", "ht")
    assert tree.turns == [(0,), (1,)] and tree.views == [(2,), (3,)]
    # Against evens, h gives seat 0 a quarter; and of seat 1, t takes an eighth.
    assert best_response(tree, uniform(tree), 0) == pytest.approx(0.25)
    assert value(tree, uniform(tree), 0) == pytest.approx(0.0625)
    assert best_response(tree, uniform(tree), 1) == pytest.approx(0.125)
    assert exploitability(tree, uniform(tree)) == pytest.approx(0.1875)
    assert exploitability(tree, np.array([[1, 2], [1, 2]]) / 3) == pytest.approx(0)


def test_nim_by_theory():
    heaps = [{"prompt": str(heap)} for heap in range(1, 10)]
    tree = tree_of(Nim, "123456789", "123", heaps)
    best = np.zeros((len(tree.views), 3))
    for row, view in enumerate(tree.views):
        best[row, best_in_nim(view[-1] + 1) - 1] = 1
    assert exploitability(tree, best) == 0
    # Two of the nine heaps are lost for who begins.
    assert value(tree, best, 0) == pytest.approx(5 / 9)
    assert best_response(tree, uniform(tree), 0) > 0.9
    assert exploitability(tree, uniform(tree)) > 0.5


def test_kuhn_poker():
    """The uniform strategy's exploitability is that of OpenSpiel; the best one is Kuhn's."""
    tree = poker()
    assert len(tree.views) == 12
    assert value(tree, uniform(tree), 0) == pytest.approx(0.125)
    assert exploitability(tree, uniform(tree)) == pytest.approx(11 / 24)
    words = {"1": 0, "2": 1, "3": 2, "p": 3, "b": 4}
    alpha = 0.2  # any number up to 1/3 is an equilibrium
    bets = {"1": alpha, "2": 0, "3": 3 * alpha, "1pb": 0, "2pb": alpha + 1 / 3, "3pb": 1}
    bets |= {"1p": 1 / 3, "2p": 0, "3p": 1, "1b": 0, "2b": 1 / 3, "3b": 1}
    strategy = np.zeros((12, 2))
    for text, bet in bets.items():
        strategy[tree.views.index(tuple(words[letter] for letter in text))] = 1 - bet, bet
    assert value(tree, strategy, 0) == pytest.approx(-1 / 18)
    assert exploitability(tree, strategy) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seat", [0, 1])
def test_a_best_response_is_the_best_of_all_pure_strategies(seat):
    """Each seat of Kuhn's poker has six views, so 64 pure strategies: all of them are tried."""
    tree = poker()
    strategy = np.random.default_rng(seat).dirichlet([1, 1], size=12)
    own = [row for row, view in enumerate(tree.views) if (len(view) == 2) == (seat == 1)]
    assert len(own) == 6

    def against(node, mine):
        if node.seat < 0:
            return node.rewards[seat]
        p = mine[node.view] if node.seat == seat else strategy[node.view]
        return sum(q * against(after, mine) for q, after in zip(p, node.after, strict=True))

    values = []
    for choice in itertools.product([0, 1], repeat=6):
        mine = strategy.copy()
        mine[own] = np.eye(2)[list(choice)]
        values.append(sum(against(root, mine) for root in tree.roots) / 6)
    assert best_response(tree, strategy, seat) == pytest.approx(max(values))


class Sums(TwoPlayerGame):
    """Pays what is said, to both: not zero-sum, and turns have several tokens."""

    def move(self, seat, text, rng):
        self.count = getattr(self, "count", 0) + 1
        paid = sum(map(int, text)) / 10
        return Outcome(rewards=(paid, paid), over=self.count == 2)


def test_turns_of_several_tokens_and_rewards_that_do_not_cancel():
    tree = tree_of(Sums, "12?", "12", [{"prompt": "?"}], max_tokens=2)
    assert tree.turns == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert value(tree, uniform(tree), 0) == pytest.approx(0.6)
    assert best_response(tree, uniform(tree), 1) == pytest.approx(0.7)
    assert exploitability(tree, uniform(tree)) == pytest.approx(0.1)


class Dice(Nim):
    def move(self, seat, text, rng):
        return Outcome(str(rng.integers(6)))


def test_what_cannot_be_listed_is_refused(monkeypatch):
    nim = ("123456789", "123", [{"prompt": "9"}])
    with pytest.raises(WorldError, match=r"draws random numbers \(rng.integers\)"):
        tree_of(Dice, *nim)
    with pytest.raises(games.TooManyPlaysError, match="turns have no limit"):
        tree_of(Nim, *nim, max_tokens=None)
    with pytest.raises(ValueError, match="no record"):
        tree_of(Nim, *nim[:2], [])
    monkeypatch.setattr(games, "TOO_MANY_PLAYS", 10)
    with pytest.raises(games.TooManyPlaysError, match="more than 10 places"):
        tree_of(Nim, *nim)
    with pytest.raises(games.TooManyPlaysError, match="more than 10 turns"):
        tree_of(Nim, *nim, max_tokens=3)


def test_strategies_that_are_none_are_refused():
    tree = poker()
    with pytest.raises(ValueError, match=r"shape \(3, 2\), the game's is \(12, 2\)"):
        exploitability(tree, uniform(tree)[:3])
    with pytest.raises(ValueError, match="no distribution"):
        exploitability(tree, uniform(tree) / 2)

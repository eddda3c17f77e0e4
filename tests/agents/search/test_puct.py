"""PUCT and its tree, traced by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.search import MCTS, MinMax, best, puct
from textenv import Prompt
from textenv.starts import Start

C = 1.25 + math.log(19655 / 19652)  # with N = 2


def test_puct_by_hand():
    asked = puct(priors=[0.6, 0.4], visits=[1, 0], values=[1.0, 0.0])
    assert asked == pytest.approx([1 + C * 0.6 * math.sqrt(2) / 2, C * 0.4 * math.sqrt(2)])
    assert asked == pytest.approx([1.530394, 0.707193], abs=1e-5)


def test_the_first_choice_goes_by_the_priors():
    assert puct([0.2, 0.5, 0.3], [0, 0, 0], [0.0, 0.0, 0.0]).argmax() == 1


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_scaled_values_are_in_the_unit_interval_and_keep_their_order(values):
    scale = MinMax()
    assert not scale(np.array([5.0])).any()
    for value in values:
        scale.meet(value)
    scaled = scale(np.array(values))
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert (np.diff(scaled[np.argsort(values)]) >= 0).all()
    shifted = MinMax()
    for value in values:
        shifted.meet(value * 2)
    assert shifted(2 * np.array(values)) == pytest.approx(scaled)


def tree_of(how):
    return how.tree(Start(Prompt("a")), (0,), np.random.default_rng(0))


def say(tree, leaf, value, *moves):
    """In place of a policy and a reward: what a leaf is worth, and its moves with their priors."""
    leaf.value = value
    leaf.ended = not moves
    if moves:
        names, priors = zip(*moves, strict=True)
        leaf.expand(names, np.array(priors))
        for number, name in enumerate(names):
            leaf.children[number] = type(leaf)((*leaf.answer, *name))
    tree.receive([leaf])


A, B, C_, D = (1,), (2,), (3,), (4,)


def test_a_tree_by_hand():
    tree = tree_of(MCTS(leaves=1))
    (root,) = tree.select(1)
    say(tree, root, 0.5, (A, 0.6), (B, 0.4))
    assert root.visits.tolist() == [0, 0]
    # All Q are 0: the larger prior.
    (a,) = tree.select(1)
    assert a.answer == A
    say(tree, a, 1.0, (C_, 0.5), (D, 0.5))
    # One value has no scale yet: 0.53 for A, 0.71 for B.
    (b,) = tree.select(1)
    assert b.answer == B
    say(tree, b, 0.0, (C_, 1.0))
    # Values are scaled to 1 and 0: 1.65 for A, 0.43 for B; of A's equal moves the first.
    (c,) = tree.select(1)
    assert c.answer == A + C_
    say(tree, c, 0.2)
    assert root.visits.tolist() == [2, 1]
    assert root.means.tolist() == pytest.approx([0.6, 0.0])
    assert a.means.tolist() == pytest.approx([0.2, 0.0])
    # 0.6 + 0.5 for A, 0.5 for B. What has ended is not asked for again.
    (d,) = tree.select(1)
    assert d.answer == A + D
    say(tree, d, 0.9)
    assert root.means[0] == pytest.approx((1.0 + 0.2 + 0.9) / 3)
    assert best(root)[0] == 1.0
    # All is known behind A.
    (last,) = tree.select(1)
    assert last.answer == B + C_
    say(tree, last, 0.0)
    assert tree.select(1) == []


def test_leaves_that_are_visited_together_differ():
    tree = tree_of(MCTS(leaves=8))
    (root,) = tree.select(8)
    say(tree, root, 0.5, (A, 0.9), (B, 0.05), (C_, 0.05))
    together = tree.select(8)
    assert [leaf.answer for leaf in together] == [A, B, C_]
    for leaf in together:
        leaf.value, leaf.ended = 0.0, True
    tree.receive(together)
    assert root.visits.tolist() == [1, 1, 1]
    assert tree.select(8) == []


def test_a_way_under_way_lowers_its_own_move():
    """A is worth 1 and asks for 1.22, B is worth 0 and asks for 0.87; with A taken it is 0.64."""
    tree = tree_of(MCTS(leaves=2))
    (root,) = tree.select(2)
    say(tree, root, 0.5, (A, 0.2), (B, 0.8))
    b, a = tree.select(2)
    for leaf, value in ((b, 0.9), (a, 1.0)):
        leaf.value = value
        leaf.expand([C_, D], np.array([0.5, 0.5]))
        leaf.children.update({n: type(leaf)((*leaf.answer, n)) for n in range(2)})
    tree.receive([b, a])
    assert [leaf.answer[:1] for leaf in tree.select(1)] == [A]
    assert [leaf.answer[:1] for leaf in tree_again(tree).select(2)] == [A, B]


def tree_again(tree):
    """As it was before the last choice, which was never answered."""
    for way in tree._ways:
        for node, move in way:
            tree._under_way[node][move] -= 1
    return tree


def test_finished_answers_are_visited_again_where_counts_are_wanted():
    tree = tree_of(MCTS(leaves=1, returns=True))
    (root,) = tree.select(1)
    say(tree, root, 0.5, (A, 0.5), (B, 0.5))
    for value in (1.0, 0.0):
        (leaf,) = tree.select(1)
        say(tree, leaf, value)
    assert tree.select(20) == []
    assert root.visits.sum() == 22
    assert root.visits[0] > 15
    assert tree.spent.visits == 20

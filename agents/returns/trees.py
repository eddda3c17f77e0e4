"""Credit in a tree of answers: what a segment earned, judged by the answers that go through it.

Sequences that branch off others (`Rollout.parents`) cut them into segments. A segment ends where
something branches off, or where its answer ends. Segments that begin behind the same text are the
children of one node, and the answers to one prompt are the children of the prompt.

    Q(segment) = its rewards + V(node where it ends),    0 for the end of an answer
    V(node)    = mean of Q over its children

In a tree in which all nodes of a level have equally many children V is the mean of the leaves
below. Elsewhere it is not, on purpose: long answers branch more often, and would count as often.
Children of a node are drawn alike, whatever becomes of them, so this mean has no bias.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.shapes import check_aligned

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Tree(NamedTuple):
    """K segments and N nodes.

    A segment has a higher number than those before it.

    Attributes:
        segment_of: Segment of each chosen token, shape (S, L), int64; -1 elsewhere.
        before: The segment that ends where each one begins, shape (K,), int64; -1 at the prompt.
        node: Node behind which each begins, shape (K,), int64.
        paid: Sum of each one's own rewards, shape (K,).
        gains: Q of each, shape (K,).
        values: V of each node, shape (N,).
        children: Segments that begin behind each node, shape (N,), int64.
    """

    segment_of: Ints
    before: Ints
    node: Ints
    paid: Floats
    gains: Floats
    values: Floats
    children: Ints

    @property
    def differences(self) -> Floats:
        """Q less the V of the node where the segment begins, shape (K,)."""
        return self.gains - self.values[self.node]

    def spread(self, per_segment: Floats, like: Tensor) -> Tensor:
        """Numbers of segments at their tokens, (S, L), 0 elsewhere; of the dtype of `like`."""
        chosen = self.segment_of >= 0
        placed = np.where(chosen, per_segment[self.segment_of], 0.0)
        return torch.from_numpy(placed).to(like)


def tree_of(rewards: Tensor, mask: Tensor, parents: Tensor | None, groups: Tensor) -> Tree:
    """The segments of a rollout, and what they earn.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        mask: (S, L) bool, at least one in each row.
        parents: (S,) int64, the sequence that each one branches off before its own first chosen
            token; -1 for none; None if nothing branches.
        groups: (S,) int64; sequences without a parent and with the same number answer the same
            prompt.

    Raises:
        ValueError: If shapes disagree, a row has chosen nothing, or a parent stands behind what
            branches off it or has chosen nothing there.
    """
    check_aligned(mask, rewards=rewards)
    for name, given in (("parents", parents), ("groups", groups)):
        if given is not None and given.shape != mask.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(given.shape)}, mask {tuple(mask.shape)}")
    chosen, prompts = mask.cpu().numpy(), groups.cpu().numpy()
    of = np.full(len(chosen), -1) if parents is None else parents.cpu().numpy()
    first = chosen.argmax(1)
    _check(of, chosen, first)
    # Where the segments of each sequence begin.
    cuts: list[list[int]] = [[int(place)] for place in first]
    for sequence, parent in enumerate(of.tolist()):
        if parent >= 0:
            cuts[parent].append(int(first[sequence]))
    cuts = [sorted(set(places)) for places in cuts]
    base = np.cumsum([0, *map(len, cuts)])  # number of each sequence's first segment
    before, node = np.full(base[-1], -1), np.zeros(base[-1], dtype=np.int64)
    nodes: dict[tuple[str, int], int] = {}  # of prompts by group, of others by a segment behind it
    for sequence, parent in enumerate(of.tolist()):
        own = range(int(base[sequence]), int(base[sequence + 1]))
        for segment in own[1:]:
            before[segment] = segment - 1
            node[segment] = nodes.setdefault(("segment", segment), len(nodes))
        if parent < 0:
            node[own[0]] = nodes.setdefault(("group", int(prompts[sequence])), len(nodes))
        else:  # it begins where a segment of the parent does
            sibling = base[parent] + cuts[parent].index(int(first[sequence]))
            before[own[0]], node[own[0]] = before[sibling], node[sibling]
    segment_of = np.full(chosen.shape, -1)
    for sequence, places in enumerate(cuts):
        chosen_here = chosen[sequence].nonzero()[0]
        numbers = np.searchsorted(places, chosen_here, side="right") - 1
        segment_of[sequence, chosen_here] = base[sequence] + numbers
    own_rewards = rewards.double().cpu().numpy()[chosen]
    paid: Floats = np.bincount(segment_of[chosen], own_rewards, minlength=base[-1]).astype(float)
    children = np.bincount(node, minlength=len(nodes))
    gains, sums = paid.copy(), np.zeros(len(nodes))
    ends = {*(base[1:] - 1).tolist()}
    # Backwards: all children of the node where a segment ends have higher numbers.
    for segment in range(len(gains) - 1, -1, -1):
        if segment not in ends:
            following = node[segment + 1]
            gains[segment] += sums[following] / children[following]
        sums[node[segment]] += gains[segment]
    return Tree(segment_of, before, node, paid, gains, sums / children, children)


def _check(of: Ints, chosen: NDArray[np.bool_], first: Ints) -> None:
    if not chosen.any(1).all():
        raise ValueError(f"sequence {int(chosen.any(1).argmin())} has no chosen token")
    there = of >= 0
    late = there & (of >= np.arange(len(of)))
    if late.any():
        raise ValueError(f"the parent of sequence {int(late.argmax())} does not stand before it")
    apart = there & ~chosen[of, first]
    if apart.any():
        sequence = int(apart.argmax())
        raise ValueError(
            f"sequence {sequence} begins at place {first[sequence]}, where its parent "
            f"{of[sequence]} has chosen nothing"
        )


def tree_changes(rewards: Tensor, mask: Tensor, parents: Tensor | None, groups: Tensor) -> Tensor:
    """What each segment changed: the value after it, and its rewards, less the value before it.

        A = Q(segment) - V(node where it begins)

    It is the local advantage of TreeRL (Hou et al., 2025, arXiv:2506.11902, without their division
    by the root of the number of leaves) and the comparison of siblings of TreeRPO (Yang et al.,
    2025, arXiv:2506.05183, without their division by a spread). Use it where steps should be told
    apart. Over the children of a node it sums to 0, and a single child has 0, like
    `group_centred`, which it is where nothing branches. `tree_leave_one_out` is n / (n - 1) times
    that.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        mask: (S, L) bool.
        parents: (S,) int64; see `tree_of`.
        groups: (S,) int64.

    Returns:
        (S, L), the dtype of `rewards`, 0 outside the mask.

    Raises:
        ValueError: See `tree_of`.
    """
    tree = tree_of(rewards, mask, parents, groups)
    return tree.spread(tree.differences, rewards)


def tree_leave_one_out(
    rewards: Tensor, mask: Tensor, parents: Tensor | None, groups: Tensor
) -> Tensor:
    """Q of each segment less the mean Q of its siblings.

        A = Q(segment) - mean of Q over the other children of the node where it begins

    `leave_one_out` at every node (Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!",
    2019). Use it where the gradient must be unbiased: times `tree_shares`, its expectation is that
    of the exact gradient, if where a tree branches depends on no more than the text before and each
    text has two children or more. A single child has 0: of a prompt's only answer the beginning
    teaches nothing.

    Args and errors are those of `tree_changes`.

    Returns:
        (S, L), the dtype of `rewards`, 0 outside the mask.
    """
    tree = tree_of(rewards, mask, parents, groups)
    n = tree.children[tree.node]
    return tree.spread(tree.differences * n / np.maximum(n - 1, 1), rewards)


def tree_ancestors(rewards: Tensor, mask: Tensor, parents: Tensor | None, groups: Tensor) -> Tensor:
    """What answers through a segment earn, less what those through each text before it do.

        A = mean over the nodes j from the prompt to where the segment begins of
            [rewards from j to the segment + Q(segment) - V(j)]

    The advantage of TreePO (Li et al., 2025, arXiv:2508.17445): an answer is compared with each of
    the nested subgroups that share a beginning with it, and the subgroups' advantages are averaged
    with equal weights. Left out: the division by the standard deviation of these advantages. Use it
    where an early mistake should be charged to what follows, too, so that long credit is less noisy
    than a difference of two values; `tree_changes` charges it to the segment that made it.

    Without branches it is `group_centred`. Its expectation is not the exact gradient's, since what
    earlier segments earned counts again. With a KL penalty in the rewards it has the same fixed
    point: there all answers to a prompt earn alike.

    Args and errors are those of `tree_changes`.

    Returns:
        (S, L), the dtype of `rewards`, 0 outside the mask.
    """
    tree = tree_of(rewards, mask, parents, groups)
    # The sum over j of [rewards from j on, up to the segment - V(j)], from that of the one before.
    depth, gaps = np.ones(len(tree.paid)), np.zeros(len(tree.paid))
    for segment, before in enumerate(tree.before.tolist()):
        if before >= 0:
            depth[segment] = depth[before] + 1
            gaps[segment] = gaps[before] + depth[before] * tree.paid[before]
        gaps[segment] -= tree.values[tree.node[segment]]
    return tree.spread(tree.gains + gaps / depth, rewards)


def tree_shares(mask: Tensor, parents: Tensor | None, groups: Tensor) -> Tensor:
    """The share of a prompt's answers that a token stands for, (S, L) float64, 0 outside the mask.

        share(segment) = share of the segment before it / children of the node between them

    An expectation over answers is the sum over segments, each weighed by this. Without it a loss
    counts late tokens of a tree more often, since there are more of them. Where nothing branches
    all answers of a group have the same.

    Args and errors are those of `tree_of`.
    """
    tree = tree_of(torch.zeros(mask.shape, dtype=torch.float64), mask.cpu(), parents, groups)
    shares = np.ones(len(tree.paid))
    for segment, before in enumerate(tree.before.tolist()):
        whole = shares[before] if before >= 0 else 1.0
        shares[segment] = whole / tree.children[tree.node[segment]]
    return tree.spread(shares, torch.zeros(0, dtype=torch.float64, device=mask.device))

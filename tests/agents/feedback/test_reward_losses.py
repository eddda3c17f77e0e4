"""Losses on rankings: by hand, against the written formulas, and against each other."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.feedback import kwise, pairwise, plackett_luce

torch.set_num_threads(1)
LOSSES = [pairwise, kwise, plackett_luce]

rankings = st.lists(
    st.lists(st.tuples(st.floats(-3, 3), st.integers(1, 4)), min_size=1, max_size=6),
    min_size=1,
    max_size=5,
)
"""For each prompt the score and the rank of each answer."""


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def tensors(prompts):
    flat = [(score, rank, group) for group, some in enumerate(prompts) for score, rank in some]
    scores, ranks, groups = (torch.tensor(column) for column in zip(*flat, strict=True))
    return scores.double().requires_grad_(), ranks, groups


def written_kwise(scores, ranks, groups):
    """Equation 1 as nested loops."""
    total, prompts = 0.0, 0
    for group in set(groups.tolist()):
        members = [i for i in range(len(groups)) if groups[i] == group]
        terms = []
        for i, j in combinations(members, 2):
            if ranks[i] != ranks[j]:
                w, l = (i, j) if ranks[i] < ranks[j] else (j, i)  # noqa: E741
                terms.append(torch.log(1 / (1 + torch.exp(-(scores[w] - scores[l])))))
        if terms:
            total, prompts = total + sum(terms) / len(terms), prompts + 1
    return -total / prompts if prompts else scores.sum() * 0


def written_plackett_luce(scores, ranks, groups):
    """Choose the best of what is left, again and again; for rankings without ties."""
    total, prompts = 0.0, 0
    for group in set(groups.tolist()):
        members = [i for i in range(len(groups)) if groups[i] == group]
        left = sorted(members, key=lambda i: int(ranks[i]))
        prompts += len(left) > 1
        while left:
            total = total + torch.log(torch.exp(scores[left[0]]) / torch.exp(scores[left]).sum())
            left = left[1:]
    return -total / max(prompts, 1)


def test_by_hand():
    # One prompt with answers A > B > C and scores 2, 0, 1; one with D > E and scores 0, 3.
    scores = torch.tensor([2.0, 0.0, 1.0, 0.0, 3.0])
    ranks, groups = torch.tensor([1, 2, 3, 1, 2]), torch.tensor([0, 0, 0, 1, 1])
    first, second = [log_sigmoid(2), log_sigmoid(1), log_sigmoid(-1)], log_sigmoid(-3)
    expected = -(sum(first) / 3 + second) / 2
    assert kwise(scores, ranks, groups).item() == pytest.approx(expected)
    assert pairwise(scores, ranks, groups).item() == pytest.approx(-(sum(first) + second) / 4)
    e = math.e
    whole = math.log(e**2 / (e**2 + 1 + e)) + math.log(1 / (1 + e)) + math.log(1 / (1 + e**3))
    assert plackett_luce(scores, ranks, groups).item() == pytest.approx(-whole / 2)


def test_ties_make_no_pair():
    # B and C are equal: two pairs, not three. The second prompt is nothing but ties.
    scores = torch.tensor([2.0, 0.0, 1.0, 5.0, -5.0])
    ranks, groups = torch.tensor([1, 2, 2, 7, 7]), torch.tensor([0, 0, 0, 1, 1])
    expected = -(log_sigmoid(2) + log_sigmoid(1)) / 2
    assert kwise(scores, ranks, groups).item() == pytest.approx(expected)
    assert pairwise(scores, ranks, groups).item() == pytest.approx(expected)
    best = math.log(math.e**2 / (math.e**2 + 1 + math.e))
    assert plackett_luce(scores, ranks, groups).item() == pytest.approx(-best)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.booleans()), min_size=1))
def test_all_agree_on_pairs(pairs):
    prompts = [[(a, 1 + turned), (b, 2 - turned)] for a, b, turned in pairs]
    batch = tensors(prompts)
    gradients = []
    for loss in LOSSES:
        value = loss(*batch)
        assert value.item() == pytest.approx(pairwise(*batch).item())
        gradients.append(torch.autograd.grad(value, batch[0])[0])
    assert all(torch.allclose(gradient, gradients[0]) for gradient in gradients)


@given(rankings)
def test_kwise_and_its_gradient_are_those_of_the_formula(prompts):
    batch = tensors(prompts)
    ours, written = kwise(*batch), written_kwise(*batch)
    assert ours.item() == pytest.approx(written.item())
    gradient, expected = (torch.autograd.grad(value, batch[0])[0] for value in (ours, written))
    assert torch.allclose(gradient, expected, atol=1e-12)


@given(rankings)
def test_plackett_luce_and_its_gradient_are_those_of_the_formula(prompts):
    untied = [[(score, i) for i, (score, _) in enumerate(some)] for some in prompts]
    batch = tensors(untied)
    ours, written = plackett_luce(*batch), written_plackett_luce(*batch)
    assert ours.item() == pytest.approx(written.item(), abs=1e-9)
    gradient, expected = (torch.autograd.grad(value, batch[0])[0] for value in (ours, written))
    assert torch.allclose(gradient, expected, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    scores, ranks, groups = tensors(
        [[(0.3, 2), (-1.0, 1), (0.5, 2), (2.0, 3)], [(1.0, 1), (1.5, 2)], [(0.1, 1)]]
    )
    assert torch.autograd.gradcheck(lambda s: loss(s, ranks, groups), scores)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_pairs_nothing_is_learned(loss):
    scores, ranks, groups = tensors([[(1.0, 1)], [(3.0, 2), (-1.0, 2)]])
    value = loss(scores, ranks, groups)
    assert value.item() == 0
    value.backward()
    assert scores.grad.abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES)
@given(prompts=rankings, shift=st.floats(-5, 5))
def test_only_differences_and_order_count(loss, prompts, shift):
    scores, ranks, groups = tensors(prompts)
    value = loss(scores, ranks, groups).item()
    assert loss(scores + shift * (groups + 1), ranks, groups).item() == pytest.approx(value)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    mixed = loss(scores[order], 3 * ranks[order] - 1, groups[order])
    assert mixed.item() == pytest.approx(value)

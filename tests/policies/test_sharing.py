"""Sequences that begin alike are encoded once, and nothing else changes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Policy, TransformerConfig, TransformerPolicy
from policies.sharing import share_beginnings, whole_rows

V = 5

texts = st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=9), min_size=1, max_size=6)


def padded(rows):
    tokens = torch.full((len(rows), max(map(len, rows))), V)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return tokens, torch.tensor([len(row) for row in rows])


def test_a_hand_made_group():
    tokens, lengths = padded([[1, 2, 3], [1, 2, 4, 0], [1, 2, 4], [3, 1]])
    rows = share_beginnings(tokens, lengths)
    assert rows.index.tolist() == [[0, 1, 2, 0], [0, 1, 3, 4], [0, 1, 3, 0], [5, 6, 0, 0]]
    assert rows.places.tolist() == [0, 1, 2, 10, 7, 12, 13]  # sorted, row 2 precedes row 1
    assert rows.positions.tolist() == [0, 1, 2, 2, 3, 0, 1]


@given(texts)
def test_every_place_finds_its_token_and_no_token_is_encoded_twice(rows):
    tokens, lengths = padded(rows)
    shared = share_beginnings(tokens, lengths)
    flat = tokens.flatten()[shared.places]
    for number, row in enumerate(rows):
        assert flat[shared.index[number, : len(row)]].tolist() == row
    distinct = {tuple(row[: n + 1]) for row in rows for n in range(len(row))}
    assert len(flat) == len(distinct)
    whole = whole_rows(lengths)
    assert len(whole.places) == int(lengths.sum())
    assert tokens.flatten()[whole.places].tolist() == [t for row in rows for t in row]


@settings(deadline=None, max_examples=40)
@given(texts, st.randoms(use_true_random=False))
def test_scores_and_gradients_are_those_of_rows_encoded_apart(rows, random):
    tokens, _ = padded(rows)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for number, row in enumerate(rows):
        mask[number, random.randrange(1, len(row)) : len(row)] = True
    policy = TransformerPolicy(TransformerConfig(V, 9, n_layer=2, n_head=2, n_embd=8), seed=1)
    with torch.no_grad():
        policy.value_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=tokens.shape)).float()

    def gradients():
        policy.zero_grad()
        outputs = policy.outputs(tokens, mask)
        sum((x * weights).sum() for x in outputs).backward()
        return outputs, [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    scores, shared = gradients()
    original = TransformerPolicy.hidden_before
    TransformerPolicy.hidden_before = Policy.hidden_before
    try:
        plain_scores, plain = gradients()
    finally:
        TransformerPolicy.hidden_before = original
    for ours, theirs in zip(scores, plain_scores, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)

"""Attention of rows that begin alike equals that of the same rows laid end to end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.rows import AttentionForm
from policies.sharing import share_beginnings, whole_rows
from policies.whole_rows import WholeRows

torch.set_num_threads(1)
HEADS, KEY_HEADS, WIDTH = 4, 2, 8
FORMS = [
    AttentionForm(0),
    AttentionForm(0, scale=0.7),
    AttentionForm(0, window=3),
    AttentionForm(0, softcap=2.0),
]


def padded(rows):
    tokens = torch.full((len(rows), max(map(len, rows))), 9)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return tokens, torch.tensor([len(row) for row in rows])


def of(texts, heads, seed):
    """A vector for each token of each row, which depends on the text up to it; as rows (S, W)."""
    tokens, _ = padded(texts)
    out = torch.zeros(*tokens.shape, heads, WIDTH)
    for row, text in enumerate(texts):
        for place in range(len(text)):
            number = hash((seed, *text[: place + 1])) % 2**31
            generator = torch.Generator().manual_seed(number)
            out[row, place] = torch.randn(heads, WIDTH, generator=generator)
    return out


def attended(texts, rows, form, prefix):
    """Outputs (S, W, heads, d) of tokens whose rows are told by `rows`; how many parts it took."""
    inputs = [
        of(texts, heads, seed).flatten(0, 1)[rows.places]
        for seed, heads in enumerate((HEADS, KEY_HEADS, KEY_HEADS))
    ]
    whole = WholeRows(rows, prefix)
    out = whole.attend(form, *inputs)
    assert len(out) == len(rows.places)
    return out[rows.index], len(whole.parts)


def check(texts, form, prefix=None):
    """Compare with the same rows, nothing shared; returns the number of parts."""
    tokens, lengths = padded(texts)
    ours, parts = attended(texts, share_beginnings(tokens, lengths), form, prefix)
    apart, one = attended(texts, whole_rows(lengths), form, prefix)
    assert one == 1
    for row, length in enumerate(lengths):
        torch.testing.assert_close(ours[row, :length], apart[row, :length], atol=1e-5, rtol=0)
    return parts


@pytest.mark.parametrize("virtual", [0, 2])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_groups_ask_behind_their_common_beginning(form, virtual):
    prompts = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 5, 6, 8]]
    answers = [[0], [1, 0], [2, 2, 3]]
    texts = [prompt + answer for prompt in prompts for answer in answers]
    prefix = None
    if virtual:
        prefix = [tuple(torch.randn(KEY_HEADS, virtual, WIDTH) for _ in "kv")]
    assert check(texts, form, prefix) == 2


def test_rows_that_share_little_are_read_whole():
    assert check([[1, 2, 3, 4, 5], [1, 3, 3, 4, 5]], FORMS[0]) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=6),
    st.sampled_from(FORMS),
)
def test_whatever_the_rows_share(texts, form):
    check(texts, form)

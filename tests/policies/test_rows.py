"""Attention of tokens that continue stored rows: the compiled loop, torch, and the formula."""

import numpy as np
import pytest
import torch

from policies import kernels
from policies.cache import Plan
from policies.rows import SHORT_RUN, AttentionForm, ContinuedRows, RowStore, attention, visible

torch.set_num_threads(1)
ROWS, HEADS, WIDTH = 5, 4, 8


def plan_of(starts, counts):
    """New tokens of every row that has any, behind what is stored of it."""
    rows = np.repeat(np.arange(ROWS), counts)
    positions = np.concatenate(
        [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
    )
    counts = np.array(counts)
    return Plan(np.zeros_like(rows), rows, positions, counts[counts > 0])


def by_the_formula(form, q, all_keys, all_values, rows, positions):
    """softmax(scale q k) v over the visible positions of one's own row, in float64."""
    out = []
    share = HEADS // all_keys.shape[2]
    scale = form.scale or WIDTH**-0.5
    for i, (row, position) in enumerate(zip(rows, positions, strict=True)):
        begin = 0 if form.window is None else max(0, position + 1 - form.window)
        for head in range(HEADS):
            keys = all_keys[row, begin : position + 1, head // share].double()
            scores = scale * keys @ q[i, head].double()
            if form.softcap is not None:
                scores = form.softcap * torch.tanh(scores / form.softcap)
            values = all_values[row, begin : position + 1, head // share].double()
            out.append(scores.softmax(0) @ values)
    return torch.stack(out).view(len(q), HEADS, -1)


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        AttentionForm(0),
        AttentionForm(0, scale=0.7),
        AttentionForm(0, window=3),
        AttentionForm(0, window=1),
        AttentionForm(0, softcap=2.0),
    ],
    ids=str,
)
@pytest.mark.parametrize(("key_heads", "of_values"), [(1, WIDTH), (2, WIDTH), (4, WIDTH), (2, 5)])
def test_every_token_sees_its_row_up_to_itself(key_heads, of_values, form, compiles, monkeypatch):
    assert kernels.kernels_fit(torch.zeros(1))
    monkeypatch.setattr(kernels, "kernels_fit", lambda x: compiles)
    generator = torch.Generator().manual_seed(0)
    store, lengths = RowStore(ROWS, 200), np.zeros(ROWS, dtype=np.int64)
    all_keys, all_values = (torch.zeros(ROWS, 200, key_heads, d) for d in (WIDTH, of_values))
    for counts in ([3, 1, 7, 2, 5], [1, 1, 1, 1, 1], [0, 4, 0, 1, 0], [1, SHORT_RUN + 3, 1, 2, 1]):
        plan = plan_of(lengths, counts)
        new = ContinuedRows(store, plan, torch.device("cpu"))
        # As networks hand them over: slices of something larger.
        packed = torch.randn(len(plan.rows), HEADS + 2 * key_heads, WIDTH, generator=generator)
        q, k, v = packed.split([HEADS, key_heads, key_heads], 1)
        v = v[..., :of_values]  # narrower than keys, as in DeepSeek V3
        all_keys[plan.rows, plan.positions] = k
        all_values[plan.rows, plan.positions] = v
        with torch.inference_mode():
            got = new.attend(form, q, k, v)
        expected = by_the_formula(form, q, all_keys, all_values, plan.rows, plan.positions)
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)
        lengths += counts
        stored_keys, stored_values = store.layers[0]
        for row, length in enumerate(lengths):
            assert torch.equal(stored_keys[row, :length], all_keys[row, :length])
            assert torch.equal(stored_values[row, :length], all_values[row, :length])


def test_extreme_scores_neither_overflow_nor_divide_by_zero():
    q, k = torch.full((1, 1, 4), 300.0), torch.full((1, 1, 4), -300.0)
    stored = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    stored[0][0, 1] = -1.0
    out = kernels.attend(q, k, torch.ones_like(k), stored, np.array([0]), np.array([2]))
    assert torch.equal(out, torch.zeros(1, 1, 4))  # all weight is on position 0
    out = kernels.attend(-q, k, torch.ones_like(k), stored, np.array([0]), np.array([2]))
    assert torch.equal(out, torch.ones(1, 1, 4))  # all weight is on the new one


def test_a_nan_stays_in_its_row():
    q = torch.randn(2, 1, 4)
    q[0] = torch.nan
    stored = torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 1, 4)
    out = kernels.attend(q, q.clone(), q.clone(), stored, np.array([0, 1]), np.array([0, 0]))
    assert out[0].isnan().all()
    torch.testing.assert_close(out[1], q[1])


def test_other_types_and_many_threads_are_left_to_torch():
    assert not kernels.kernels_fit(torch.zeros(1, dtype=torch.float64))
    assert not kernels.kernels_fit(torch.zeros(1, dtype=torch.bfloat16))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(kernels.FEW_THREADS + 1)
        assert not kernels.kernels_fit(torch.zeros(1))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dtypes", ["bbb", "ffb"])  # with rotary positions q and k come in fp32
def test_attention_leaves_bfloat16_on_a_cpu(window, dtypes):
    """Its gradient would take longer; and the same numbers come out without a gradient."""
    generator, form = torch.manual_seed(0), AttentionForm(0, window=window)
    kinds = {"b": torch.bfloat16, "f": torch.float32}
    inputs = [torch.randn(2, 3, 9, 4, generator=generator).to(kinds[name]) for name in dtypes]
    mask = None if window is None else visible(torch.arange(9), 9, window, inputs[2].dtype)
    low = [x.clone().requires_grad_() for x in inputs]
    full = [x.float().clone().requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*low, mask, form)
        with torch.no_grad():
            assert torch.equal(attention(*inputs, mask, form), out)
    expected = attention(*full, None if mask is None else mask.float(), form).bfloat16()
    assert torch.equal(out, expected)
    for x in (out, expected):
        x.float().square().sum().backward()
    for x, y in zip(low, full, strict=True):
        assert torch.equal(x.grad, y.grad.to(x.dtype))


def test_attention_stays_in_float64():
    inputs = [torch.randn(1, 2, 4, 3, dtype=torch.float64).requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *x: attention(*x, None, AttentionForm(0)), inputs)

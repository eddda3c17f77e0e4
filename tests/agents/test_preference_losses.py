"""Preference losses: by hand, and beside TRL's own."""

import importlib
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import preference_losses as pl

torch.set_num_threads(1)
CHOSEN, REJECTED = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_dpo_by_hand():
    # Margins of 1 and -2, at beta 0.5.
    expected = -(math.log(sigmoid(0.5)) + math.log(sigmoid(-1.0))) / 2
    assert pl.dpo(CHOSEN, REJECTED, 0.5).item() == pytest.approx(expected)
    assert pl.dpo(CHOSEN, CHOSEN, 0.5).item() == pytest.approx(math.log(2))


def test_ipo_by_hand():
    # The margin is to be 1 / (2 * 0.25) = 2: it misses by 1 and by 4.
    assert pl.ipo(CHOSEN, REJECTED, 0.25).item() == pytest.approx((1 + 16) / 2)
    assert pl.ipo(REJECTED + 2.0, REJECTED, 0.25).item() == 0


def test_kto_by_hand():
    log_ratios, desirable = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([True, False, False])
    values = [sigmoid(0.5 * (1 - 0.5)), sigmoid(0.5 * (0.5 - 1)), sigmoid(0.5 * (0.5 + 2))]
    kl = torch.tensor(0.5)
    expected = sum(1 - value for value in values) / 3
    assert pl.kto(log_ratios, desirable, kl, 0.5).item() == pytest.approx(expected)
    weighted = (2 * (1 - values[0]) + 3 * (1 - values[1]) + 3 * (1 - values[2])) / 3
    assert pl.kto(log_ratios, desirable, kl, 0.5, 2.0, 3.0).item() == pytest.approx(weighted)


def test_kto_moves_good_answers_up_and_bad_ones_down_and_not_its_reference_point():
    log_ratios = torch.zeros(2, requires_grad=True)
    kl = torch.zeros((), requires_grad=True)
    pl.kto(log_ratios, torch.tensor([True, False]), kl, 0.5).backward()
    # beta v (1 - v) / 2 = 0.5 * 0.25 / 2
    assert log_ratios.grad.tolist() == pytest.approx([-1 / 16, 1 / 16])
    assert kl.grad is None


@pytest.mark.parametrize("loss", [pl.dpo, pl.ipo])
def test_no_pairs_teach_nothing(loss):
    nothing = torch.zeros(0, requires_grad=True)
    result = loss(nothing, nothing, 0.1)
    assert result.item() == 0
    result.backward()
    assert nothing.grad.tolist() == []


def test_log_ratios_of_answers():
    nan = math.nan
    mask = torch.tensor([[False, True, True], [False, True, False]])
    own = torch.tensor([[nan, -1.0, -2.0], [nan, -3.0, nan]], requires_grad=True)
    ref = torch.tensor([[nan, -2.0, -4.0], [nan, -1.0, nan]], requires_grad=True)
    ratios = pl.sequence_log_ratios(own, ref, mask)
    assert ratios.tolist() == [3.0, -2.0]
    ratios.sum().backward()
    assert own.grad.tolist() == mask.float().tolist()
    assert ref.grad is None
    with pytest.raises(ValueError, match=r"ref_logprobs has shape \(2, 2\)"):
        pl.sequence_log_ratios(own, ref[:, 1:], mask)


def test_pairs_by_hand():
    returns = torch.tensor([1.0, 3.0, 2.0, 2.0, 5.0, 5.0])
    groups = torch.tensor([7, 7, 7, 4, 4, 4])
    chosen, rejected = pl.ranked_pairs(returns, groups)
    assert set(zip(chosen.tolist(), rejected.tolist(), strict=True)) == {
        (1, 0),
        (1, 2),
        (2, 0),
        (4, 3),
        (5, 3),
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12))
def test_pairs_against_a_loop(answers):
    returns = torch.tensor([float(r) for r, _ in answers])
    groups = torch.tensor([g for _, g in answers])
    chosen, rejected = pl.ranked_pairs(returns, groups)
    expected = [
        (i, j)
        for i, (r, g) in enumerate(answers)
        for j, (s, h) in enumerate(answers)
        if g == h and r > s
    ]
    assert sorted(zip(chosen.tolist(), rejected.tolist(), strict=True)) == expected


# --- TRL's formulas -------------------------------------------------------------------------------


def random_answers(answers, tokens, seed=0):
    """Log-probabilities of tokens (answers, tokens) and of the reference's answers (answers,)."""
    generator = torch.Generator().manual_seed(seed)
    own, ref = torch.randn(2, answers, tokens, generator=generator, dtype=torch.float64)
    return own, ref.sum(1)


def trl_trainer(name):
    """TRL's trainer class; its import warns of what it may."""
    pytest.importorskip("trl", reason="TRL is one of the benchmarks' peers: pip install .[bench]")
    module = importlib.import_module(f"trl.trainer.{name.lower()}_trainer")
    return getattr(module, f"{name}Trainer")


def trl_loss(trainer, logprobs, inputs, **attributes):
    """The trainer's own loss of answers with these log-probabilities, (S, L)."""
    answers, tokens = logprobs.shape
    zeros = torch.zeros(answers, tokens)
    outputs = SimpleNamespace(
        log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
    )
    text = torch.ones(answers, tokens + 1, dtype=torch.int64)
    prompted = text.clone()
    prompted[:, 0] = 0  # the first token is the prompt

    def same(x):
        return x

    itself = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=same, gather=same),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        **attributes,
    )
    inputs = {"input_ids": text, "completion_mask": prompted, "attention_mask": text, **inputs}
    return trainer._compute_loss(itself, lambda **kwargs: outputs, inputs, False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("loss_type", "ours", "tokens"), [("sigmoid", pl.dpo, 5), ("ipo", pl.ipo, 1)]
)
def test_pairs_as_trl_writes_them(loss_type, ours, tokens):
    """TRL's IPO divides by the answers' lengths, so that it agrees for answers of one token."""
    logprobs, ref = random_answers(6, tokens)
    theirs = trl_loss(
        trl_trainer("DPO"),
        logprobs,
        {"ref_chosen_logps": ref[:3], "ref_rejected_logps": ref[3:]},
        beta=0.3,
        loss_types=[loss_type],
        loss_weights=[1.0],
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    ratios = logprobs.sum(1) - ref
    torch.testing.assert_close(ours(ratios[:3], ratios[3:], 0.3), theirs)


@pytest.mark.filterwarnings("ignore")
def test_kto_as_trl_writes_it():
    logprobs, ref = random_answers(5, 4)
    desirable = torch.tensor([True, False, True, True, False])
    kl_logprobs, kl_ref = torch.tensor([-1.0, -2.0]).double(), torch.tensor([-2.0, -2.5]).double()
    theirs = trl_loss(
        trl_trainer("KTO"),
        logprobs,
        {"label": desirable, "ref_logps": ref, "ref_KL_logps": kl_ref},
        beta=0.3,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=1.5,
        undesirable_weight=0.5,
        _compute_kl_logps=lambda model, batch: kl_logprobs,
    )
    kl = (kl_logprobs - kl_ref).mean()
    ours = pl.kto(logprobs.sum(1) - ref, desirable, kl, 0.3, 1.5, 0.5)
    torch.testing.assert_close(ours, theirs)

"""Rules for drafts by hand, by simulation, and by two ways to sum over all answers."""

import numpy as np
import pytest
import torch

from benchmarks import speculation as bench
from benchmarks.speculation import RULES, START, all_pairs, law, law_of_rule, laws_given, stepped

torch.set_num_threads(1)
Q = torch.full((4,), 0.25, dtype=torch.float64)
P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
EXACT = ("with residual", "point mass", "same uniforms", "same Gumbel noise")


def token_law(rule):
    """Law of one token whose draft is drawn from Q, and the probability that it is kept."""
    accept, instead = RULES[rule](Q, P)
    return Q * accept + (Q * (1 - accept)) @ instead, float(Q @ accept)


@pytest.mark.parametrize(
    ("rule", "kept", "expected"),
    [
        ("all kept", 1.0, Q),
        ("with residual", 0.25 + 0.25 + 0.2 + 0.1, P),
        # Kept: 0.25, 0.25, 0.2, 0.1. What is rejected, 0.2, is drawn from P.
        ("without residual (SPEC-RL)", 0.8, [0.33, 0.31, 0.24, 0.12]),
        # 1.6487 P / Q: only the last is rejected, with 1 - 0.6595.
        ("SPEC-RL, lenience e^0.5", 0.9149, [0.2840, 0.2755, 0.2670, 0.1734]),
        ("point mass", 0.25, P),
        # Kept: a quarter of P; the rest from P.
        ("point mass without residual", 0.25, P),
        # Overlaps of intervals that end at 0.25, 0.5, 0.75, 1 and at 0.4, 0.7, 0.9, 1.
        ("same uniforms", 0.25 + 0.1 + 0.05 + 0.1, P),
        # 1 / the sums of max(1, P_k / P_i).
        ("same Gumbel noise", 1 / 4 + 1 / (1 / 0.75 + 3) + 1 / 5.5 + 1 / 10, P),
    ],
)
def test_a_token_by_hand(rule, kept, expected):
    found, share = token_law(rule)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert share == pytest.approx(kept, abs=1e-4)


def test_gumbel_pairs_are_those_of_noise():
    rng, count = np.random.default_rng(0), 200_000
    p = torch.tensor([0.1, 0.5, 0.15, 0.25], dtype=torch.float64)
    noise = rng.gumbel(size=(count, 4))
    pairs = np.zeros((4, 4))
    chosen = [(x.log().numpy() + noise).argmax(1) for x in (P, p)]
    np.add.at(pairs, tuple(chosen), 1 / count)
    accept, instead = bench.same_gumbels(P, p)
    expected = torch.diag(P * accept) + (P * (1 - accept))[:, None] * instead
    np.testing.assert_allclose(pairs, expected, atol=5 * 0.5 / count**0.5)


@pytest.mark.parametrize("move", bench.MOVES)
def test_exact_rules_sample_the_present_policy(move):
    p = bench.moved(bench.MOVES[move], 0.2)
    assert float(bench.distance(p, START)) == pytest.approx(0.2, abs=1e-6)
    shares = {}
    for name, rule in RULES.items():
        found, shares[name] = law_of_rule(START, p, rule)
        assert found.sum() == pytest.approx(1.0)
        off = float((found - law(p)).abs().sum() / 2)
        assert off < 1e-12 if name in EXACT else off > 0.05
    # No exact rule keeps more than speculative sampling (Leviathan et al., 2023, corollary 3.6).
    assert max(shares[name] for name in EXACT) == shares["with residual"]


@pytest.mark.parametrize("rule", RULES)
def test_the_mean_over_drafts_is_the_law_of_the_rule(rule):
    p = bench.moved(bench.by_noise, 0.5)
    pair = (x.expand(40, -1, -1) for x in (START, p))
    became = laws_given(torch.arange(40)[:, None], *pair, RULES[rule])
    expected, _ = law_of_rule(START, p, RULES[rule])
    np.testing.assert_allclose(law(START) @ became[:, 0], expected, atol=1e-12)


def test_a_step_is_that_of_the_mean_advantage():
    """RLOO's by torch's own gradient."""
    drafts = torch.tensor([[3, 17, 30]])
    table = START.log().requires_grad_()
    logprobs = bench.of_answers(table.softmax(-1)).log().sum(-1)[drafts[0]]
    scores = bench.SCORES[drafts[0]]
    advantages = scores - (scores.sum() - scores) / 2
    (gradient,) = torch.autograd.grad((advantages * logprobs).mean(), table)
    expected = (table.detach() + 2.0 * gradient).softmax(-1)
    torch.testing.assert_close(stepped(START[None], drafts, 2.0)[0], expected)


def test_drafts_that_were_learned_from_bias_all_rules_but_the_point_mass():
    drafts, weights = all_pairs()
    assert weights.sum() == pytest.approx(1.0)
    rate = bench.rate_for(2, 0.2)
    for name in EXACT:
        off = bench.after_step(drafts, weights, rate, RULES[name])[0].abs().sum() / 2
        assert off < 1e-9 if name == "point mass" else off > 0.05

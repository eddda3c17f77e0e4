"""The Gumbel-max sampler: its law, its noise, and how it couples two policies."""

import numpy as np
import pytest
import torch

from policies import TransformerConfig, TransformerPolicy, generate_tokens, kernels
from policies.sampling import sample, sample_gumbel
from textenv.seeding import draw_seed

torch.set_num_threads(1)
ways = pytest.mark.parametrize("compiles", [True, False])


@pytest.fixture
def way(compiles, monkeypatch):
    if not compiles:
        monkeypatch.setattr(kernels, "kernels_fit", lambda x: False)


def noise(uniform, vocab_size):
    """G of each token, from SplitMix64 in plain integers."""
    key = int(np.float64(uniform).view(np.uint64))
    w = np.array([(draw_seed(key, token) >> 11) + 0.5 for token in range(vocab_size)]) / 2**53
    return -np.log(-np.log1p(-w))


@ways
@pytest.mark.parametrize("vocab_size", [1, 2, 127, 128, 129, 300])
def test_the_largest_sum_of_logit_and_noise_wins(vocab_size, way):
    generator = np.random.default_rng(vocab_size)
    logits = torch.from_numpy(generator.normal(scale=3.0, size=(6, vocab_size)).astype("f"))
    logits[:, 1::3] = -torch.inf
    uniforms = generator.random(6)
    tokens, logprobs = sample_gumbel(logits, uniforms)
    sums = [x + noise(u, vocab_size) for x, u in zip(logits.double().numpy(), uniforms)]  # noqa: B905
    assert tokens.tolist() == [int(row.argmax()) for row in sums]
    expected = logits.log_softmax(-1).gather(1, torch.from_numpy(tokens)[:, None]).squeeze(1)
    np.testing.assert_allclose(logprobs, expected, atol=2e-6)
    assert tokens.dtype == np.int64 and logprobs.dtype == np.float32


@pytest.mark.parametrize("vocab_size", [4, 1000, 5000])
def test_torch_and_the_compiled_loop_agree(vocab_size, monkeypatch):
    logits = 3 * torch.randn(64, vocab_size, generator=torch.Generator().manual_seed(0))
    logits[:, ::3] = -torch.inf
    uniforms = np.random.default_rng(0).random(64)
    tokens, logprobs = sample_gumbel(logits, uniforms)
    monkeypatch.setattr(kernels, "kernels_fit", lambda x: False)
    expected_tokens, expected = sample_gumbel(logits, uniforms)
    assert (tokens == expected_tokens).all()
    np.testing.assert_allclose(logprobs, expected, atol=2e-6)


@ways
def test_the_law_is_that_of_the_logits(way):
    probabilities = torch.tensor([0.4, 0.0, 0.3, 0.2, 0.09, 0.01])
    logits = probabilities.log().expand(20_000, 6).contiguous()
    tokens, _ = sample_gumbel(logits, np.random.default_rng(5).random(20_000))
    counts = np.bincount(tokens, minlength=6)
    assert counts[1] == 0
    expected = 20_000 * probabilities.numpy()[counts > 0]
    assert ((counts[counts > 0] - expected) ** 2 / expected).sum() < 13.28  # 1% of chi-square(4)


@ways
@pytest.mark.parametrize("bad", [[-torch.inf, -torch.inf, -torch.inf], [0.0, torch.nan, 1.0]])
def test_where_nothing_can_be_chosen_the_log_probability_is_nan(bad, way):
    tokens, logprobs = sample_gumbel(torch.tensor([[0.0, 1.0, 2.0], bad]), np.array([0.5, 0.5]))
    assert np.isnan(logprobs).tolist() == [False, True]
    assert ((tokens >= 0) & (tokens < 3)).all()


def test_a_row_depends_on_no_other_row_and_not_on_the_threads(monkeypatch):
    logits = torch.randn(9, 700, generator=torch.Generator().manual_seed(0))
    uniforms = np.random.default_rng(0).random(9)
    whole, order = sample_gumbel(logits, uniforms), np.random.default_rng(1).permutation(9)
    for found, expected in zip(sample_gumbel(logits[order], uniforms[order]), whole, strict=True):
        np.testing.assert_array_equal(found, expected[order])
    alone = [sample_gumbel(logits[i : i + 1], uniforms[i : i + 1]) for i in range(9)]
    np.testing.assert_array_equal(np.concatenate([x[0] for x in alone]), whole[0])
    np.testing.assert_array_equal(np.concatenate([x[1] for x in alone]), whole[1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for found, expected in zip(sample_gumbel(logits, uniforms), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_two_policies_choose_the_same_token_as_often_as_the_bound_says_and_the_inverse_cdf_less():
    generator = torch.Generator().manual_seed(3)
    one = torch.randn(1, 400, generator=generator)
    other = one + 0.3 * torch.randn(1, 400, generator=generator)
    distance = float((one.softmax(-1) - other.softmax(-1)).abs().sum() / 2)
    uniforms, n = np.random.default_rng(0).random(20_000), 20_000

    def same(sampler):
        both = (sampler(x.expand(n, -1).contiguous(), uniforms)[0] for x in (one, other))
        return float(np.equal(*both).mean())

    # Bavarian et al., "The Optimality of Correlated Sampling", 2020: at least (1 - d) / (1 + d).
    assert same(sample_gumbel) > (1 - distance) / (1 + distance) - 0.01
    assert same(sample) < 0.5 * same(sample_gumbel)


def test_a_policy_acts_and_generates_with_it():
    policy = TransformerPolicy(TransformerConfig(30, context=9, n_layer=1, n_head=1, n_embd=16))
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(30)
    observations = np.full((4, 9), 30)
    observations[:, :2] = np.arange(8).reshape(4, 2)
    uniforms, mask = np.random.default_rng(0).random(4), np.arange(30) < 20
    step = policy.act(
        observations, temperature=0.7, uniforms=uniforms, sampler=sample_gumbel, action_masks=mask
    )
    with torch.inference_mode():
        logits = policy.logits(policy.last_hidden(observations)) / 0.7
    tokens, logprobs = sample_gumbel(
        logits.masked_fill(~torch.from_numpy(mask), -torch.inf), uniforms
    )
    np.testing.assert_array_equal(step.actions, tokens)
    np.testing.assert_array_equal(step.logprobs, logprobs)
    (answer,) = generate_tokens(
        policy,
        [[0, 1]],
        1,
        temperature=0.7,
        stop_tokens=[],
        action_masks=mask,
        generator=np.random.default_rng(0),
        sampler=sample_gumbel,
    )
    assert answer == [step.actions[0]]

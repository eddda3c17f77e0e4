import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import TransformerConfig, TransformerPolicy, kernels
from policies.sampling import BLOCK, keep_top, mask_logits, sample, sample_inverse_cdf

torch.set_num_threads(1)
LARGEST = 1 - 2**-53  # the largest number that a generator returns
SIZES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 44]


def by_torch(probabilities, uniforms):
    probabilities = torch.as_tensor(probabilities, dtype=torch.float32)
    uniforms = torch.as_tensor(uniforms, dtype=torch.float64)
    return sample_inverse_cdf(probabilities.expand(len(uniforms), -1), uniforms).tolist()


def compiled(probabilities, uniforms):
    logits = torch.as_tensor(probabilities, dtype=torch.float32).log()
    rows = logits.expand(len(uniforms), -1).contiguous()
    return kernels.sample(rows, np.asarray(uniforms, dtype=np.float64))[0].tolist()


both = pytest.mark.parametrize("sample", [by_torch, compiled])


# --- the inverse of the cumulative distribution ---------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 8.0, 2.0**-20])
def test_by_hand(scale):
    below = np.nextafter
    uniforms = [0.0, below(0.125, 0), 0.125, below(0.375, 0), 0.375, 0.5, 0.9, LARGEST]
    probabilities = scale * np.array([0.125, 0.25, 0.125, 0.5])
    assert by_torch(probabilities, uniforms) == [0, 0, 1, 1, 2, 3, 3, 3]
    # Logits round: next to a bound, not on it.
    uniforms = [0.0, 0.1249, 0.1251, 0.3749, 0.3751, 0.5001, 0.9, LARGEST]
    assert compiled(probabilities, uniforms) == [0, 0, 1, 1, 2, 3, 3, 3]


def test_rows_are_independent():
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    uniforms = torch.tensor([0.75, 0.1], dtype=torch.float64)
    assert sample_inverse_cdf(probabilities, uniforms).tolist() == [1, 1]


@both
@pytest.mark.parametrize("vocab_size", [*SIZES, 1000, 5000])
def test_the_middle_of_every_tokens_interval_gives_that_token(sample, vocab_size):
    generator = np.random.default_rng(vocab_size)
    probabilities = generator.dirichlet(np.full(vocab_size, 2.0)).astype(np.float32)
    bounds = np.concatenate([[0.0], probabilities.astype(np.float64).cumsum()])
    middles = (bounds[:-1] + bounds[1:]) / 2 / bounds[-1]
    chosen = np.array(sample(probabilities, middles))
    wide = probabilities > 1e-5  # wider than the rounding of sums
    assert wide.mean() > 0.8
    assert (chosen == np.arange(vocab_size))[wide].all()


@both
@pytest.mark.parametrize("vocab_size", [100, BLOCK, 700])
def test_frequencies(sample, vocab_size):
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal(size=vocab_size)).float()
    probabilities = logits.softmax(-1)
    draws = 100 * vocab_size
    chosen = sample(probabilities, generator.random(draws))
    counts = np.bincount(chosen, minlength=vocab_size)
    expected = draws * probabilities.double().numpy()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # Has mean V - 1 and standard deviation sqrt(2 (V - 1)).
    assert abs(chi_square - (vocab_size - 1)) < 4 * np.sqrt(2 * (vocab_size - 1))


# --- probability zero -----------------------------------------------------------------------------


@both
@settings(max_examples=300, deadline=None)
@given(
    vocab_size=st.sampled_from(SIZES),
    data=st.data(),
    uniform=st.one_of(st.sampled_from([0.0, LARGEST]), st.floats(0, LARGEST)),
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_a_masked_token_is_never_chosen(sample, vocab_size, data, uniform, seed, sharpness):
    allowed = data.draw(
        st.sets(
            st.one_of(
                st.integers(0, vocab_size - 1),
                # the borders of blocks
                st.sampled_from([0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, vocab_size - 1]),
            ).filter(lambda token: token < vocab_size),
            min_size=1,
        )
    )
    mask = torch.zeros(1, vocab_size, dtype=torch.bool)
    mask[0, list(allowed)] = True
    logits = sharpness * torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(seed))
    probabilities = mask_logits(logits, mask).softmax(-1)
    (token,) = sample(probabilities[0], [uniform])
    assert probabilities[0, token] > 0
    assert token in allowed


@both
@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST])
@pytest.mark.parametrize("vocab_size", SIZES)
def test_a_single_allowed_token_is_always_chosen(sample, vocab_size, uniform):
    for token in {0, vocab_size // 2, vocab_size - 1, min(BLOCK - 1, vocab_size - 1)}:
        probabilities = torch.zeros(vocab_size)
        probabilities[token] = 1e-30
        assert sample(probabilities, [uniform]) == [token]


@both
def test_the_borders_of_the_range_choose_the_outermost_positive_tokens(sample):
    for vocab_size in SIZES[1:]:
        for first, last in [(0, vocab_size - 1), (1, vocab_size - 1), (0, vocab_size - 2)]:
            probabilities = torch.zeros(vocab_size)
            probabilities[[first, last]] = 0.3
            chosen = sample(probabilities, [0.0, LARGEST])
            assert chosen == [first, last], vocab_size


# --- both ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab_size", [*SIZES, 5000])
def test_torch_and_the_compiled_loop_agree(vocab_size, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(64, vocab_size, generator=generator)
    logits[:, ::3] = -torch.inf
    logits[:, -1] = 1.0
    uniforms = np.random.default_rng(0).random(64)
    assert kernels.kernels_fit(logits)
    tokens, logprobs = sample(logits, uniforms)
    monkeypatch.setattr(kernels, "kernels_fit", lambda x: False)
    expected_tokens, expected = sample(logits, uniforms)
    assert (tokens == expected_tokens).all()
    np.testing.assert_allclose(logprobs, expected, atol=2e-6)
    assert tokens.dtype == expected_tokens.dtype and logprobs.dtype == expected.dtype


def test_logits_that_are_a_part_of_others():
    logits = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    uniforms = np.random.default_rng(0).random(8)
    part = logits[:, :200]
    for got, expected in zip(
        kernels.sample(part, uniforms), kernels.sample(part.clone(), uniforms), strict=True
    ):
        assert (got == expected).all()


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("bad", [[-torch.inf, -torch.inf, -torch.inf], [0.0, torch.nan, 1.0]])
def test_where_nothing_can_be_chosen_the_log_probability_is_nan(bad, compiles, monkeypatch):
    monkeypatch.setattr(kernels, "kernels_fit", lambda x: compiles)
    tokens, logprobs = sample(torch.tensor([[0.0, 1.0, 2.0], bad]), np.array([0.5, 0.5]))
    assert np.isnan(logprobs).tolist() == [False, True]
    assert ((tokens >= 0) & (tokens < 3)).all()


# --- top-k and top-p ------------------------------------------------------------------------------


def simple_top_k(logits, k):
    kept = np.full(len(logits), -np.inf)
    for token in sorted(range(len(logits)), key=lambda i: -logits[i])[:k]:
        kept[token] = logits[token]
    return kept


def simple_top_p(logits, p):
    weights = np.exp(logits - max(logits))
    weights /= weights.sum()
    kept, reached = np.full(len(logits), -np.inf), 0.0
    for token in sorted(range(len(logits)), key=lambda i: -logits[i]):
        if reached >= p:
            break
        kept[token] = logits[token]
        reached += weights[token]
    return kept


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.integers(-400, 400), min_size=1, max_size=12, unique=True),
    k=st.integers(1, 15),
    p=st.floats(0.01, 0.99),
)
def test_top_k_and_top_p_against_loops(logits, k, p):
    logits = np.array(logits) / 100
    tensor = torch.from_numpy(logits)[None]
    np.testing.assert_array_equal(keep_top(tensor, top_k=k)[0], simple_top_k(logits, k))
    np.testing.assert_array_equal(keep_top(tensor, top_p=p)[0], simple_top_p(logits, p))
    both = keep_top(tensor, top_k=k, top_p=p)[0]
    np.testing.assert_array_equal(both, simple_top_p(simple_top_k(logits, k), p))


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    kept = [keep_top(logits, top_p=p).isfinite().sum().item() for p in (0.1, 0.5, 0.51, 0.8, 1.0)]
    assert kept == [1, 1, 2, 3, 4]


def test_nothing_is_dropped_unless_asked_for():
    logits = torch.randn(3, 7)
    assert torch.equal(keep_top(logits), logits)
    assert torch.equal(keep_top(logits, top_k=7), logits)
    assert torch.equal(keep_top(logits, top_k=100), logits)
    assert torch.equal(keep_top(logits, top_p=1.0), logits)
    assert mask_logits(logits, None) is logits


# --- how a policy uses it -------------------------------------------------------------------------

VOCAB = 300
OBSERVATIONS = np.full((64, 8), VOCAB)
OBSERVATIONS[:, :3] = np.arange(64)[:, None]


@pytest.fixture(scope="module")
def policy():
    policy = TransformerPolicy(TransformerConfig(VOCAB, context=8, n_layer=1, n_head=1, n_embd=16))
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(30)
    return policy


def probabilities_of(policy, temperature=1.0):
    """The distribution of every row, from the definition."""
    with torch.inference_mode():
        logits = policy.logits(policy.last_hidden(OBSERVATIONS)).double()
        return (logits / temperature).softmax(-1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_act_takes_one_uniform_number_a_row(policy, temperature):
    step = policy.act(OBSERVATIONS, temperature=temperature, generator=np.random.default_rng(7))
    probabilities = probabilities_of(policy, temperature=temperature)
    bounds = probabilities.cumsum(-1).numpy()
    uniforms = np.random.default_rng(7).random(64)
    expected = [np.searchsorted(b, u, side="right") for b, u in zip(bounds, uniforms, strict=True)]
    assert step.actions.tolist() == expected
    chosen = probabilities[torch.arange(64), torch.from_numpy(step.actions)]
    np.testing.assert_allclose(step.logprobs, chosen.log(), atol=1e-5)


def test_deterministic_takes_the_likeliest_token(policy):
    step = policy.act(OBSERVATIONS, deterministic=True, generator=np.random.default_rng(7))
    likeliest = probabilities_of(policy).max(-1)
    assert step.actions.tolist() == likeliest.indices.tolist()
    np.testing.assert_allclose(step.logprobs, likeliest.values.log(), atol=1e-5)
    mask = np.ones((64, VOCAB), dtype=bool)
    mask[np.arange(64), step.actions] = False
    second = policy.act(OBSERVATIONS, deterministic=True, action_masks=mask)
    expected = probabilities_of(policy).topk(2, dim=-1).indices[:, 1]
    assert second.actions.tolist() == expected.tolist()


def test_deterministic_uses_no_random_number(policy):
    generator = np.random.default_rng(3)
    policy.act(OBSERVATIONS, deterministic=True, generator=generator)
    assert generator.random() == np.random.default_rng(3).random()


def test_the_policys_own_generator_makes_runs_repeatable():
    def run(seed):
        config = TransformerConfig(VOCAB, context=8, n_layer=1, n_head=1, n_embd=16)
        policy = TransformerPolicy(config, seed=0)
        policy.generator = np.random.default_rng(seed)
        torch.manual_seed(np.random.default_rng().integers(2**31))  # must not matter
        return [policy.act(OBSERVATIONS).actions.tolist() for _ in range(2)]

    first = run(5)
    assert first == run(5)
    assert first[0] != first[1]
    assert first != run(6)


def test_a_generator_of_the_callers_leaves_the_policys_own_alone(policy):
    state = policy.generator.bit_generator.state
    policy.act(OBSERVATIONS, generator=np.random.default_rng(0))
    assert policy.generator.bit_generator.state == state

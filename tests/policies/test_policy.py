import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from letters import Letters
from torch.distributions import Categorical

from agents.collector import Collector
from policies import (
    TransformerConfig,
    TransformerPolicy,
    generate_tokens,
    kernels,
    load_policy,
    save_policy,
)
from policies.checkpoint import saved_tokenizer
from textenv.errors import CheckpointError, VocabularyMismatchError
from textenv.tokenizers import BytesTokenizer, train_bpe
from textenv.vector import TextVectorEnv

torch.set_num_threads(1)
VOCAB = 12


def strengthen(policy, seed=0):
    """Large random weights everywhere, the value head included, so that every part shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def make_policy(context=20, tokenizer=None):
    config = TransformerConfig(VOCAB, context, n_layer=2, n_head=2, n_embd=16)
    return strengthen(TransformerPolicy(config, tokenizer=tokenizer))


def make_rollout(temperature=1.0, **env_options):
    """A policy, and a rollout of ragged prompts and answers that it chose."""
    options = {"max_new_tokens": 10, "stop_tokens": [0, 1], "num_envs": 6} | env_options
    envs = TextVectorEnv(
        prompts=["a", "bcdef", "dd", "ghiabcd"],
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=Letters(VOCAB),
        **options,
    )
    policy = strengthen(TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=16))
    collector = Collector(policy, envs, temperature, seed=0)
    rollout = collector.collect_steps(25)
    lengths = (rollout.tokens != VOCAB).sum(1)
    assert len(set(lengths.tolist())) > 4  # ragged
    return policy, rollout


def scored(policy, rollout, **options):
    with torch.no_grad():
        return policy.outputs(rollout.tokens, rollout.mask, **options)


# --- scoring --------------------------------------------------------------------------------------

MASKS = {"min_new_tokens": 4, "forbidden_tokens": [5, 7]}


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("env_options", [{}, MASKS], ids=["free", "masked"])
def test_scoring_a_rollout_reproduces_what_was_sampled(temperature, env_options):
    policy, rollout = make_rollout(temperature, **env_options)
    assert (rollout.action_masks is not None) == bool(env_options)
    outputs = scored(policy, rollout, temperature=temperature, action_masks=rollout.action_masks)
    assert (outputs.logprobs - rollout.logprobs).abs().max() < 1e-4
    assert (outputs.values - rollout.values).abs().max() < 1e-4
    assert rollout.logprobs[rollout.mask].std() > 0.3  # worth comparing
    assert rollout.values[rollout.mask].std() > 0.1


def test_leaving_out_temperature_or_masks_shows():
    policy, rollout = make_rollout(0.6, **MASKS)
    masks = rollout.action_masks
    for options in ({"action_masks": masks}, {"temperature": 0.6}):
        assert (scored(policy, rollout, **options).logprobs - rollout.logprobs).abs().max() > 0.1


def test_scores_follow_the_definition():
    """Each choice is scored from the text before it, by a softmax of logits / temperature."""
    policy, rollout = make_rollout(0.6, **MASKS)
    outputs = scored(policy, rollout, temperature=0.6, action_masks=rollout.action_masks)
    for (s, p), allowed in zip(rollout.mask.nonzero().tolist(), rollout.action_masks, strict=True):
        observation = rollout.tokens[s : s + 1, :p]
        with torch.no_grad():
            hidden = policy.hidden_states(observation[0], torch.tensor([p]))[-1:]
            logits = policy.logits(hidden)[0] / 0.6
            value = policy.value_head(hidden)[0, 0]
        logits[~allowed] = -torch.inf
        distribution = Categorical(logits=logits)
        expected = distribution.log_prob(rollout.tokens[s, p])
        assert outputs.logprobs[s, p].item() == pytest.approx(expected.item(), abs=1e-4)
        entropy = Categorical(probs=logits.softmax(-1)).entropy()
        assert outputs.entropies[s, p].item() == pytest.approx(entropy.item(), abs=1e-4)
        assert outputs.values[s, p].item() == pytest.approx(value.item(), abs=1e-4)
        assert policy.value(observation).item() == pytest.approx(value.item(), abs=1e-4)


def test_entropy_has_a_finite_gradient_beside_masked_actions():
    policy, rollout = make_rollout(**MASKS)
    outputs = policy.outputs(rollout.tokens, rollout.mask, action_masks=rollout.action_masks)
    outputs.entropies.sum().backward()
    gradient = policy.transformer.token_embedding.weight.grad
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_scores_are_zero_outside_the_mask():
    policy, rollout = make_rollout()
    for part in scored(policy, rollout):
        assert (part[~rollout.mask] == 0).all() and (part[rollout.mask] != 0).all()


@pytest.mark.parametrize("pads", [0, 3, 7])
def test_padding_changes_nothing(pads):
    policy, rollout = make_rollout()
    expected = scored(policy, rollout)
    longest = int((rollout.tokens != VOCAB).sum(1).max())

    def padded(x, fill):
        return torch.nn.functional.pad(x[:, :longest], (0, pads), value=fill)

    with torch.no_grad():
        outputs = policy.outputs(padded(rollout.tokens, VOCAB), padded(rollout.mask, False))
    for part, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(part[:, :longest], wanted[:, :longest], atol=1e-5, rtol=0)


def test_one_sequence_at_a_time_gives_the_same_as_all_at_once():
    policy, rollout = make_rollout(0.6, **MASKS)
    expected = scored(policy, rollout, temperature=0.6, action_masks=rollout.action_masks)
    for s in range(len(rollout)):
        alone = rollout.select(torch.tensor([s]))
        scores = scored(policy, alone, temperature=0.6, action_masks=alone.action_masks)
        for part, wanted in zip(scores, expected, strict=True):
            width = alone.tokens.shape[1]
            torch.testing.assert_close(part[0], wanted[s, :width], atol=1e-5, rtol=0)


def test_acting_does_not_depend_on_padding_or_on_the_other_rows():
    policy = make_policy()
    texts = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]]
    expected = None
    for capacity in (6, 9, 13):
        observations = np.full((3, capacity), VOCAB)
        for row, text in enumerate(texts):
            observations[row, : len(text)] = text
        step = policy.act(observations, generator=np.random.default_rng(1))
        expected = expected or step
        np.testing.assert_array_equal(step.actions, expected.actions)
        np.testing.assert_allclose(step.logprobs, expected.logprobs, atol=1e-5)
        np.testing.assert_allclose(step.values, expected.values, atol=1e-5)
    for row, text in enumerate(texts):
        alone = policy.act([text], action_masks=np.arange(VOCAB)[None] == expected.actions[row])
        np.testing.assert_allclose(alone.values, expected.values[row], atol=1e-5)


def test_what_follows_the_last_choice_does_not_matter():
    policy = make_policy()
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    mask = torch.tensor([[False, False, True, False, False]])
    with torch.no_grad():
        one = policy.outputs(tokens, mask)
        other = policy.outputs(torch.tensor([[1, 2, 3, 9, 8]]), mask)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_training_mode_changes_no_score():
    policy, rollout = make_rollout()
    expected = scored(policy.eval(), rollout)
    for part, wanted in zip(scored(policy.train(), rollout), expected, strict=True):
        assert torch.equal(part, wanted)


# --- copies and files -----------------------------------------------------------------------------


def test_a_frozen_copy_stays_as_it_is():
    policy = make_policy()
    observation = [[1, 2, 3]]
    before = policy.value(observation).item()
    frozen = policy.frozen_copy()
    assert type(frozen) is type(policy) and not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in policy.parameters())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    policy.act(observation)
    assert policy.value(observation).item() != pytest.approx(before, abs=1e-3)
    assert frozen.value(observation).item() == before
    fresh = np.random.default_rng(0)
    assert frozen.act(observation, generator=fresh).values[0] == pytest.approx(before, abs=1e-6)


def test_a_policy_survives_a_file(tmp_path):
    policy = make_policy(tokenizer=BytesTokenizer())
    saved = policy.save(tmp_path / "deep" / "folder")
    loaded = TransformerPolicy.load(saved)
    assert loaded.config == policy.config
    assert loaded.tokenizer.fingerprint == BytesTokenizer.fingerprint
    for name, weight in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert sorted(p.name for p in saved.iterdir()) == ["policy.json", "policy.safetensors"]


def test_a_vocabulary_of_ones_own_is_saved_with_the_policy(tmp_path):
    tokenizer = train_bpe(["the cat and the hat and the rat"] * 20, 270)
    policy = make_policy(tokenizer=tokenizer)
    loaded = load_policy(save_policy(policy, tmp_path))
    assert loaded.tokenizer.fingerprint == tokenizer.fingerprint
    assert loaded.tokenizer.encode("the hat") == tokenizer.encode("the hat")


def test_weights_can_be_taken_from_a_file(tmp_path):
    saved = make_policy().save(tmp_path)
    other = strengthen(make_policy(), seed=1)
    cache = other.new_cache(1)
    observation = np.array([[3, 1, 4] + [VOCAB] * 17])
    other.value(observation, cache)
    other.load_weights(saved)
    expected = make_policy().value(observation).item()
    assert other.value(observation, cache).item() == pytest.approx(expected, abs=1e-6)


def test_the_tokenizer_of_a_folder_without_its_network(tmp_path):
    made = train_bpe(["the end, the end, the end"], 258)
    for name, tokenizer in (("bpe", made), ("bytes", BytesTokenizer()), ("none", None)):
        size = VOCAB if tokenizer is None else tokenizer.vocab_size
        config = TransformerConfig(size, 8, n_layer=1, n_head=1, n_embd=8)
        TransformerPolicy(config, tokenizer=tokenizer).save(tmp_path / name)
        (tmp_path / name / "policy.safetensors").unlink()
    assert saved_tokenizer(tmp_path / "bpe").fingerprint == made.fingerprint
    assert saved_tokenizer(tmp_path / "bytes").name == "bytes"
    assert saved_tokenizer(tmp_path / "none") is None
    assert saved_tokenizer(tmp_path / "nowhere") is None


def test_a_missing_policy(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"nowhere holds no policy .*: there is no folder .*nowhere"
    ):
        load_policy(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\x00 nonsense", None])
def test_a_damaged_policy(tmp_path, name, content):
    make_policy().save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_policy(tmp_path)


def test_a_description_that_does_not_fit_the_weights(tmp_path):
    make_policy().save(tmp_path)
    description = json.loads((tmp_path / "policy.json").read_text())
    description["config"]["n_layer"] = 1
    (tmp_path / "policy.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="do not fit its description"):
        load_policy(tmp_path)


def test_a_format_of_the_future(tmp_path):
    make_policy().save(tmp_path)
    description = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(CheckpointError, match="checkpoint format 99, this version reads 1"):
        load_policy(tmp_path)


def test_another_vocabulary(tmp_path):
    make_policy(tokenizer=BytesTokenizer()).save(tmp_path / "bytes")
    with pytest.raises(VocabularyMismatchError, match=r"'bytes'.*'letters'"):
        load_policy(tmp_path / "bytes", Letters(VOCAB))
    make_policy().save(tmp_path / "none")
    with pytest.raises(VocabularyMismatchError, match="has 12 tokens, letters has 7"):
        load_policy(tmp_path / "none", Letters(7))
    with pytest.raises(VocabularyMismatchError):
        make_policy(tokenizer=Letters(VOCAB)).load_weights(tmp_path / "bytes")


def test_weights_of_another_shape(tmp_path):
    saved = make_policy(context=10).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"context=10.*not.*context=20"):
        make_policy(context=20).load_weights(saved)


def test_the_vocabulary_given_is_the_one_used(tmp_path):
    letters = Letters(VOCAB)
    make_policy(tokenizer=letters).save(tmp_path)
    assert load_policy(tmp_path, letters).tokenizer is letters
    with pytest.raises(CheckpointError, match="the tokenizer 'letters' of the policy"):
        load_policy(tmp_path)  # nothing knows that name


# --- what act refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperatures_that_are_refused(temperature):
    with pytest.raises(ValueError, match=rf"temperature is {temperature}.*deterministic=True"):
        make_policy().act([[1, 2]], temperature=temperature)


def test_an_empty_row():
    with pytest.raises(ValueError, match="row 1 of the observations is empty"):
        make_policy().act([[1, 2], [VOCAB, VOCAB]])


def test_observations_of_another_shape_than_the_caches():
    policy = make_policy()
    cache = policy.new_cache(2, capacity=5)
    with pytest.raises(ValueError, match=r"shape \(2, 4\), the cache was made for \(2, 5\)"):
        policy.act(np.zeros((2, 4)), cache)


def test_a_text_longer_than_the_context():
    policy = make_policy(context=5)
    assert policy.act(np.zeros((1, 5))).actions.shape == (1,)
    with pytest.raises(ValueError, match="row 0 of the observations has 6 tokens, the policy's"):
        policy.act(np.zeros((1, 6)))


@pytest.mark.parametrize(("token", "message"), [(-1, "from -1 to 1"), (13, "from 1 to 13")])
def test_ids_that_are_no_tokens(token, message):
    with pytest.raises(ValueError, match=f"{message}; the policy knows tokens 0 to 11"):
        make_policy().act([[1, token]])


def test_rows_without_a_distribution():
    policy = make_policy()
    masks = np.ones((3, VOCAB), dtype=bool)
    masks[1] = False
    with pytest.raises(ValueError, match="chosen for row 1: its action mask leaves none"):
        policy.act([[1], [2], [3]], action_masks=masks)
    torch.nn.init.constant_(policy.transformer.ln_f.bias, torch.nan)
    with pytest.raises(ValueError, match=r"row 0.*NaN because training diverged"):
        policy.act([[1], [2], [3]])


# --- environments ---------------------------------------------------------------------------------


def test_for_env_fits_the_spaces():
    envs = TextVectorEnv(2, prompts=["abc"], reward=len, tokenizer=Letters(5), max_new_tokens=4)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=8, seed=3)
    expected = TransformerConfig(vocab_size=5, context=7, n_layer=1, n_head=2, n_embd=8)
    assert policy.config == expected
    assert policy.tokenizer is envs.tokenizer
    longer = TransformerPolicy.for_env(envs, context=30, n_layer=1, n_head=2, n_embd=8)
    assert longer.context == 30


def test_observations_are_prefixes_whatever_the_path_to_them():
    """A loop of single steps and one jump end in the same distribution."""
    policy = make_policy()
    cache = policy.new_cache(1)
    text = [3, 1, 4, 1, 5, 9, 2, 6]
    for end, following in pairwise(range(1, len(text) + 1)):
        observation = np.array([text[:end] + [VOCAB] * (20 - end)])
        only = np.arange(VOCAB)[None] == text[end]
        assert policy.act(observation, cache, action_masks=only).actions[0] == text[following - 1]
    observation = np.array([text + [VOCAB] * 12])
    cached = policy.act(observation, cache, generator=np.random.default_rng(0))
    fresh = policy.act(observation, generator=np.random.default_rng(0))
    np.testing.assert_allclose(cached.logprobs, fresh.logprobs, atol=1e-5)
    np.testing.assert_allclose(cached.values, fresh.values, atol=1e-5)


def test_read_is_last_hidden_with_a_gradient():
    policy = TransformerPolicy(TransformerConfig(5, 6, n_layer=2, n_head=2, n_embd=8), seed=1)
    observations = torch.tensor([[1, 2, 3, 5, 5, 5], [1, 2, 3, 4, 0, 1], [4, 5, 5, 5, 5, 5]])
    read = policy.read(observations.float())
    assert read.requires_grad
    torch.testing.assert_close(read, policy.last_hidden(observations).clone(), atol=1e-5, rtol=0)


# --- number types of observations and of torch ----------------------------------------------------

NUMBERS = [
    (np.float16, 2048), (np.int8, 127), (np.uint8, 255), (np.int16, 2**15 - 1),
    (torch.float16, 2048), (torch.bfloat16, 256), (torch.uint8, 255), (torch.int16, 2**15 - 1),
]  # fmt: skip


def with_vocabulary(size):
    return TransformerPolicy(TransformerConfig(size, 8, n_layer=1, n_head=1, n_embd=4))


def cast(rows, dtype):
    rows = np.array(rows)
    return (
        torch.from_numpy(rows).to(dtype) if isinstance(dtype, torch.dtype) else rows.astype(dtype)
    )


@pytest.mark.parametrize(("dtype", "largest"), NUMBERS, ids=lambda x: str(x))
def test_number_types_that_hold_every_id_are_read_and_others_refused(dtype, largest):
    policy = with_vocabulary(largest)
    rows = [[largest - 1, largest - 2, largest, largest]]
    expected = policy.act(rows, deterministic=True)
    read = policy.act(cast(rows, dtype), deterministic=True)
    assert read.logprobs == expected.logprobs
    beyond = with_vocabulary(largest + 1)  # its padding is one too many
    name = str(dtype).removeprefix("torch.").removeprefix("<class 'numpy.").removesuffix("'>")
    with pytest.raises(ValueError, match=rf"are {name}, .* up to {largest} only, but ids go up to"):
        beyond.act(cast([[1, 2]], dtype))
    if isinstance(dtype, torch.dtype):
        with pytest.raises(ValueError, match=f"are {name}"):
            beyond.read(cast([[1, 2]], dtype))
        assert torch.equal(policy.read(cast(rows, dtype)), policy.read(torch.tensor(rows)))


@pytest.mark.parametrize("bad", [0.5, float("nan"), float("inf")])
def test_floats_that_are_no_ids_are_refused(bad):
    policy = with_vocabulary(5)
    for rows in (np.array([[1.0, bad]]), torch.tensor([[1.0, bad]])):
        with pytest.raises(ValueError, match="which is not a token id: remove what changes them"):
            policy.act(rows)
    with pytest.raises(ValueError, match="not a token id"):
        policy.read(torch.tensor([[1.0, bad]]))


@pytest.fixture
def default_dtype():
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_dtype_set_later_changes_nothing(dtype, compiles, default_dtype, monkeypatch):
    if not compiles:
        monkeypatch.setattr(kernels, "kernels_fit", lambda x: False)
    policy = make_policy()
    texts = np.array([[1, 2, 3, VOCAB], [4, 5, VOCAB, VOCAB]])
    mask = torch.tensor([[False, True, True, False], [False, True, False, False]])

    def seen():
        policy.zero_grad()
        cache = policy.new_cache(2, 4)
        first = policy.act(texts, cache, generator=np.random.default_rng(0))
        longer = texts.copy()
        longer[0, 3], longer[1, 2] = first.actions
        step = policy.act(longer, cache, temperature=0.7, generator=np.random.default_rng(1))
        outputs = policy.outputs(torch.from_numpy(texts), mask)
        (outputs.logprobs.sum() + outputs.entropies.sum() + outputs.values.sum()).backward()
        gradients = [p.grad.flatten() for p in policy.parameters()]
        written = generate_tokens(
            policy, [[1, 2], [3]], 4, stop_tokens=[], generator=np.random.default_rng(2)
        )
        return [*first, *step, *(x.detach() for x in outputs), *gradients], written

    (expected, texts_before), _ = seen(), default_dtype(dtype)
    found, texts_after = seen()
    assert texts_before == texts_after
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype and (np.asarray(one) == np.asarray(other)).all()

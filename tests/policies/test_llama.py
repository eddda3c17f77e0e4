"""Our network in Llama's form against transformers' Llama with the same weights."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from policies import TransformerConfig, TransformerPolicy, kernels, linear, load_policy
from policies.rotary import NTK, Linear, Llama3, Rope, YaRN, turned
from textenv.errors import ModelError, UnsupportedModelError
from textenv.tokenizers import BytesTokenizer

transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
torch.set_num_threads(1)
VOCAB, CONTEXT = 31, 40
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 1000.0},
    "linear": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn as in DeepSeek": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 1.3,
        "mscale_all_dim": 0.7,
        "truncate": False,
    },
}


def llama(seed=0, **changes):
    """A Llama whose logits depend on every token, position and weight."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**(SHAPE | {"rope_parameters": ROPES["default"]} | changes))
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape))
    return model


def random_rows(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(VOCAB, (n,), generator=generator) for n in lengths]


def their_logits(model, row):
    with torch.no_grad():
        return model(row[None]).logits[0]


def cached_logits(policy, rows):
    """Logits after every token of the rows, one new token a step, one (longest, V) a row."""
    cache = policy.new_cache(len(rows), policy.context)
    states = []
    for end in range(1, max(map(len, rows)) + 1):
        observations = np.full((len(rows), policy.context), policy.pad_token)
        for row, tokens in enumerate(rows):
            observations[row, : min(end, len(tokens))] = tokens[:end]
        with torch.inference_mode():
            states.append(policy.logits(policy.last_hidden(observations, cache)).clone())
    return torch.stack(states, dim=1)


def assert_equal(policy, model, rows):
    """Scored and cached, ragged rows, to 1e-4."""
    lengths = torch.tensor([len(row) for row in rows])
    with torch.no_grad():
        scored = policy.logits(policy.hidden_states(torch.cat(rows), lengths))
    cached = cached_logits(policy, rows)
    for i, (row, ours) in enumerate(zip(rows, scored.split(lengths.tolist()), strict=True)):
        expected = their_logits(model, row)
        assert expected.std() > 0.3  # large enough to tell
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(cached[i, : len(row)], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "head_dim": 6},
        {"attention_bias": True},
        {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 0.01},
        *({"rope_parameters": rope} for name, rope in ROPES.items() if name != "default"),
    ],
)
def test_logits_equal_those_of_transformers_llama(changes):
    model = llama(**changes)
    assert_equal(TransformerPolicy.from_llama(model), model, random_rows(17, CONTEXT, 1, 11))


@pytest.mark.parametrize("length", [10, CONTEXT, 64])
def test_dynamic_positions_are_those_of_one_length(length):
    dynamic = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    model = llama(rope_parameters=dynamic)
    policy = TransformerPolicy.from_llama(model, context=length)
    (row,) = random_rows(length)
    expected = their_logits(model, row)  # transformers takes the length of the text
    torch.testing.assert_close(cached_logits(policy, [row])[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["linear", "llama3", "yarn", "yarn as in DeepSeek"])
def test_frequencies_are_those_of_transformers(name):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from policies.llama import rope_of

    known = ROPES[name] | {"rope_theta": 500_000.0, "original_max_position_embeddings": 8192}
    config = transformers.LlamaConfig(
        **(SHAPE | {"head_dim": 64, "max_position_embeddings": 65536, "rope_parameters": known})
    )
    turns, magnitude = ROPE_INIT_FUNCTIONS[known["rope_type"]](config)
    rope = rope_of(config.rope_parameters, 65536, 65536)
    assert rope == Rope.from_json(rope.as_json())
    ours, ours_magnitude = rope.scaling.stretched(rope.theta, 64)
    torch.testing.assert_close(ours, turns)
    assert ours_magnitude == pytest.approx(magnitude)


def test_scalings_by_hand():
    """Heads of 4 numbers and theta 100: pairs turn by 1 and 0.1 radians a position."""
    plain = Rope(100.0).table(3, 4)
    assert plain.shape == (2, 3, 2)
    expected = [[math.cos(p), math.cos(0.1 * p)] for p in range(3)]
    torch.testing.assert_close(plain[0], torch.tensor(expected))
    stretched, magnitude = Linear(4.0).stretched(100.0, 4)
    assert stretched.tolist() == pytest.approx([0.25, 0.025]) and magnitude == 1
    stretched, _ = NTK(9.0).stretched(100.0, 4)  # theta becomes 100 * 9 ** 2
    assert stretched.tolist() == pytest.approx([1.0, 1 / 90])
    assert NTK.at(20, 10, 3.0).factor == 4.0 and NTK.at(5, 10, 3.0).factor == 1.0
    # Within 100 positions the pairs turn 15.9 and 1.59 times.
    stretched, _ = Llama3(10.0, 100, low=1.0, high=2.0).stretched(100.0, 4)
    kept = 100 * 0.1 / (2 * math.pi) - 1
    assert stretched.tolist() == pytest.approx([1.0, kept * 0.1 + (1 - kept) * 0.01])
    stretched, magnitude = YaRN(10.0, 100, beta_fast=10.0, beta_slow=1.0).stretched(100.0, 4)
    assert stretched.tolist() == pytest.approx([1.0, 0.055])  # pair 1 is half-way from 0 to 2
    assert magnitude == pytest.approx(0.1 * math.log(10) + 1)


def test_turned_products_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    table = Rope(50.0).table(30, 8)

    def product(at, other):
        return (turned(q, table[:, [at]]) * turned(k, table[:, [other]])).sum()

    torch.testing.assert_close(product(3, 1), product(29, 27))
    assert not torch.isclose(product(3, 1), product(4, 1))


# --- one call ------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Notes each block that is computed by one compiled call."""
    if not kernels.panels_fit():
        pytest.skip("the loops are not compiled here")
    monkeypatch.setattr(linear, "packing_pays", lambda: True)
    seen = []
    original = kernels.Block.__call__

    def note(self, *arguments):
        seen.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(kernels.Block, "__call__", note)
    return seen


FORMS = {
    "llama": TransformerConfig.llama(
        VOCAB, CONTEXT, n_layer=2, n_head=4, n_kv_head=2, n_embd=24, tied=False
    ),
    "rms": TransformerConfig(VOCAB, CONTEXT, 2, 4, 24, norm="rms"),
    "swiglu": TransformerConfig(VOCAB, CONTEXT, 2, 4, 24, mlp="swiglu", mlp_width=37),
    "rotary": TransformerConfig(VOCAB, CONTEXT, 2, 4, 24, rope=Rope(30.0, YaRN(2.0, 12))),
    "heads": TransformerConfig(VOCAB, CONTEXT, 2, 6, 20, n_kv_head=3, head_dim=8),
    "no biases": TransformerConfig(VOCAB, CONTEXT, 2, 4, 24, bias=False),
}


def strong(config):
    policy = TransformerPolicy(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.transformer.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("form", FORMS)
def test_each_option_alone_is_one_call_a_block_and_what_torch_computes(form, calls, monkeypatch):
    policy, rows = strong(FORMS[form]), random_rows(9, 14, 3)
    got = cached_logits(policy, rows)
    assert len(calls) == 2 * 14
    monkeypatch.setattr(kernels, "kernels_fit", lambda x: False)
    monkeypatch.setattr(linear, "packing_pays", lambda: False)
    torch.testing.assert_close(got, cached_logits(policy, rows), atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_scores_repeat_what_was_sampled(form):
    policy = strong(FORMS[form])
    observations = np.full((5, CONTEXT), VOCAB)
    observations[:, 0] = range(5)
    cache, logprobs = policy.new_cache(5, CONTEXT), []
    for step in range(12):
        chosen = policy.act(observations, cache)
        observations[:, step + 1] = chosen.actions
        logprobs.append(chosen.logprobs)
    tokens = torch.from_numpy(observations[:, :13])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    scored = policy.outputs(tokens, mask).logprobs[:, 1:].detach().numpy()
    np.testing.assert_allclose(scored, np.stack(logprobs, 1), atol=1e-4)


# --- around it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_saved_and_loaded(form, tmp_path):
    policy, rows = strong(FORMS[form]), random_rows(9)
    policy.save(tmp_path)
    loaded = load_policy(tmp_path)
    assert loaded.config == policy.config
    assert torch.equal(cached_logits(loaded, rows), cached_logits(policy, rows))


def test_a_file_of_the_gpt_form_is_as_it_was():
    """Files of versions that knew no other form have these fields, and are written with them."""
    config = TransformerConfig(7, 8, 1, 2, 16)
    known = {"vocab_size": 7, "context": 8, "n_layer": 1, "n_head": 2, "n_embd": 16}
    assert config.as_json() == known and TransformerConfig.from_json(known) == config


def test_adapters_and_copies_of_the_llama_form():
    peft = pytest.importorskip("peft")
    from policies import adapters

    policy, rows = strong(FORMS["llama"]), random_rows(9)
    before = cached_logits(policy, rows)
    lora = peft.LoraConfig(target_modules=["qkv", "mlp_in", "mlp_out"], init_lora_weights=False)
    adapters.add_adapter(policy, lora)
    adapted = cached_logits(policy, rows)
    assert (adapted - before).abs().max() > 1e-3
    torch.testing.assert_close(cached_logits(policy.frozen_copy(), rows), adapted)


def test_a_longer_context_is_that_of_transformers_with_the_same_scaling():
    short = llama()
    longer = TransformerPolicy.from_llama(short).lengthened(64, YaRN(2.0, 32))
    yarn = ROPES["yarn"] | {
        "factor": 2.0, "rope_theta": 1000.0, "original_max_position_embeddings": 32
    }  # fmt: skip
    model = llama(rope_parameters=yarn, max_position_embeddings=64)
    model.load_state_dict(short.state_dict())
    assert longer.context == longer.config.context == 64
    assert_equal(longer, model, random_rows(64, 20))
    with pytest.raises(ValueError, match="embeds its positions"):
        TransformerPolicy(TransformerConfig(5, 8, 1, 1, 4)).lengthened(16)


def test_one_pair_is_not_stretched_by_a_larger_base():
    narrow = TransformerPolicy(TransformerConfig.llama(5, 8, n_layer=1, n_head=2, n_embd=4))
    with pytest.raises(ModelError, match=r"head of 2 numbers.*Linear"):
        narrow.lengthened(16, NTK(2.0))
    for scaling in (Linear(2.0), YaRN(2.0, 8), Llama3(2.0, 8)):
        assert narrow.lengthened(16, scaling).context == 16
        assert Rope(scaling=scaling).table(16, 2).isfinite().all()


def test_the_vocabulary_of_a_tokenizer_is_kept():
    model = llama(vocab_size=300)
    policy = TransformerPolicy.from_llama(model, BytesTokenizer())
    assert policy.vocab_size == 257
    (row,) = random_rows(6)
    with torch.no_grad():
        ours = policy.logits(policy.hidden_states(row, torch.tensor([6])))
    torch.testing.assert_close(ours, their_logits(model, row)[:, :257], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "'gelu' is no Llama"),
        ({"rope_parameters": ROPES["default"] | {"partial_rotary_factor": 0.5}}, "on whole heads"),
        (
            {"rope_parameters": {"rope_type": "proportional", "rope_theta": 10.0, "factor": 2.0}},
            "are not among ours",
        ),
    ],
)
def test_other_models_are_refused(changes, message):
    with pytest.raises(UnsupportedModelError, match=message):
        TransformerPolicy.from_llama(llama(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_head": 3}, "n_kv_head 3 does not divide n_head 4"),
        ({"n_kv_head": 0}, "every size must be 1 or more"),
        ({"rope": Rope(), "head_dim": 3}, "a head has 3 numbers"),
        ({"norm": "batch"}, "norms are 'layer' or 'rms'"),
    ],
)
def test_shapes_that_make_no_network_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TransformerConfig(10, 10), **changes)


def test_the_gated_mlp_has_as_many_parameters():
    width = 192
    plain, gated = (
        TransformerConfig(5, 8, n_embd=width), TransformerConfig(5, 8, n_embd=width, mlp="swiglu")
    )  # fmt: skip
    assert plain.inner_width == 768 and gated.inner_width == 512
    assert 2 * plain.inner_width == 3 * gated.inner_width

"""Families of transformers, one by one: a policy computes what they do, or says why it cannot."""

import pytest
import torch
from hf_models import CONTEXT, VOCAB, WIDTH, cached, uncached
from letters import Letters

from policies.huggingface import HuggingFacePolicy
from textenv.errors import UnsupportedModelError

t = pytest.importorskip("transformers")
torch.set_num_threads(1)

HIDDEN = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
}
SHARED = {**HIDDEN, "num_key_value_heads": 2}
EMBD = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "n_inner": 24}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    **HIDDEN,
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
"""DeepSeek's attention, in which values are narrower than keys."""

WORKS = {
    "BioGpt": HIDDEN,
    "CodeGen": {**EMBD, "n_ctx": CONTEXT, "rotary_dim": 4},
    "Cohere": SHARED,
    "DeepseekV2": LATENT,
    "DeepseekV3": LATENT,
    "Falcon": {**HIDDEN, "multi_query": True},
    "GPTBigCode": EMBD,
    "GPTJ": {**EMBD, "rotary_dim": 2},
    "GPTNeo": {
        "hidden_size": WIDTH,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 24,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": CONTEXT,
    },
    "Gemma": {**SHARED, "head_dim": 4},
    "Mixtral": {**SHARED, **EXPERTS},
    "Nemotron": SHARED,
    "Olmo": SHARED,
    "Olmo2": SHARED,
    "Persimmon": HIDDEN,
    "Phi": SHARED,
    "Phi3": SHARED,
    "Qwen3": {**SHARED, "head_dim": 4},
    "StableLm": SHARED,
    "Starcoder2": SHARED,
}
REFUSED = {
    "Bloom": ({"hidden_size": WIDTH, "n_layer": 2, "n_head": 4}, "compute everything themselves"),
    "Falcon": ({**HIDDEN, "alibi": True}, "compute everything themselves"),
    "Mpt": ({"d_model": WIDTH, "n_layers": 2, "n_heads": 4}, "compute everything themselves"),
    "DiffLlama": (SHARED, "attend more than once"),
    "Doge": (SHARED, "uses more than queries, keys, values"),
    "GptOss": (SHARED, "its attention has sinks"),
    "Jamba": ({**SHARED, "attn_layer_period": 2, "attn_layer_offset": 1}, "only 1 of its 2 layers"),
    "Roberta": (HIDDEN, "cannot read a text"),
}


def model_of(family, shape, seed=0):
    """A tiny random one whose logits depend on every token, position and weight."""
    config = getattr(t, f"{family}Config")(
        vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, **shape
    )
    torch.manual_seed(seed)
    model = getattr(t, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("family", WORKS)
def test_a_policy_computes_what_the_model_does(family):
    model = model_of(family, WORKS[family])
    policy = HuggingFacePolicy(model, Letters(VOCAB), context=CONTEXT)
    cache = policy.new_cache(3)
    texts = [[1, 2, 3, 4, 5, 6, 0, 1, 2, 3], [3], [2, 2, 5, 1, 6]]
    for _ in range(4):  # ragged rows, then one restarts, one goes on, one takes another's place
        with torch.no_grad():
            own = [model(input_ids=torch.tensor([text])).logits[0, -1] for text in texts]
        torch.testing.assert_close(uncached(policy, texts), torch.stack(own), atol=1e-4, rtol=0)
        got = cached(policy, cache, texts)
        torch.testing.assert_close(got, torch.stack(own), atol=1e-4, rtol=0)
        texts = [[*texts[1], 4], [*texts[0], 1, 5], [5, 6]]


# Rows reach these in unusual ways.
@pytest.mark.parametrize("family", ["Falcon", "GPTNeo", "StableLm"])
def test_recomputed_activations_belong_to_the_same_rows(family):
    tokens = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 6, 0, 1]])

    def gradients(recomputed):
        model = model_of(family, WORKS[family])
        policy = HuggingFacePolicy(model, Letters(VOCAB), context=CONTEXT)
        if recomputed:
            policy.checkpoint_activations()
        policy.outputs(tokens, tokens > 1).logprobs[:, 1:].sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for a, b in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["Falcon", "GPTJ"])
def test_a_copy_attends_with_weights_of_its_own(family):
    model = model_of(family, WORKS[family])
    policy = HuggingFacePolicy(model, Letters(VOCAB), context=CONTEXT)
    copy, texts = policy.frozen_copy(), [[1, 2, 3, 4], [3]]
    before = uncached(policy, texts)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert torch.equal(uncached(copy, texts), before)
    assert (uncached(policy, texts) - before).abs().max() > 0.1


@pytest.mark.parametrize("family", ["CodeGen", "Falcon", "GPTJ", "GPTNeo", "StableLm"])
def test_the_model_itself_generates_as_before(family):
    texts = torch.tensor([[1, 2, 3, 4, 5, 6, 0, 1]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = model_of(family, WORKS[family]).generate(texts, **options)
    policy = HuggingFacePolicy(model_of(family, WORKS[family]), Letters(VOCAB), context=CONTEXT)
    assert torch.equal(policy.model.generate(texts, **options), expected)


@pytest.mark.parametrize("family", REFUSED)
def test_a_refusal_gives_its_reason(family):
    shape, why = REFUSED[family]
    with pytest.raises(UnsupportedModelError, match=why):
        HuggingFacePolicy(model_of(family, shape), Letters(VOCAB), context=CONTEXT)


@pytest.mark.parametrize(
    ("is_decoder", "why"),
    [
        (False, "not causal: later tokens change"),
        (True, "head is more than a linear layer"),
    ],
)
def test_an_encoder_is_no_causal_model(is_decoder, why):
    shape = {**HIDDEN, "pad_token_id": 0, "is_decoder": is_decoder}
    model = t.BertLMHeadModel(t.BertConfig(vocab_size=VOCAB, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    with pytest.raises(UnsupportedModelError, match=why):
        HuggingFacePolicy(model, Letters(VOCAB))

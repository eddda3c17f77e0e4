"""Tiny random models of the families that are tested, as policies."""

import numpy as np
import torch
from letters import Letters

from policies import TransformerConfig, TransformerPolicy
from policies.huggingface import HuggingFacePolicy

VOCAB, WIDTH, CONTEXT = 7, 16, 24


def tiny(family, vocab_size=VOCAB, **changes):
    """A model whose logits depend on every token, position and weight."""
    import transformers as t

    small = {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    rotary = {
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        **small,
    }
    shared_keys = {**rotary, "num_key_value_heads": 2}
    gpt2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, **small}
    opt = {
        "hidden_size": WIDTH,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "word_embed_proj_dim": WIDTH,
        **small,
    }
    made = {
        "gpt2": (t.GPT2LMHeadModel, t.GPT2Config, gpt2),
        "llama": (t.LlamaForCausalLM, t.LlamaConfig, shared_keys),
        "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config, shared_keys),
        "qwen2 with windows": (
            t.Qwen2ForCausalLM,
            t.Qwen2Config,
            {
                **shared_keys,
                "use_sliding_window": True,
                "sliding_window": 5,
                "layer_types": ["full_attention", "sliding_attention"],
            },
        ),
        "gpt neox": (t.GPTNeoXForCausalLM, t.GPTNeoXConfig, rotary),
        "opt": (t.OPTForCausalLM, t.OPTConfig, opt),
        "opt projected": (
            t.OPTForCausalLM,
            t.OPTConfig,
            {**opt, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
        ),
        "mistral": (t.MistralForCausalLM, t.MistralConfig, {**shared_keys, "sliding_window": 6}),
        "gemma2": (
            t.Gemma2ForCausalLM,
            t.Gemma2Config,
            {
                **shared_keys,
                "head_dim": 4,
                "sliding_window": 5,
                "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
                "query_pre_attn_scalar": 4,
            },
        ),
        "granite": (
            t.GraniteForCausalLM,
            t.GraniteConfig,
            {**shared_keys, "logits_scaling": 3.0, "attention_multiplier": 0.4},
        ),
    }
    model_class, config_class, shape = made[family]
    torch.manual_seed(0)
    model = model_class(config_class(**{**shape, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


FAMILIES = [
    "gpt2",
    "llama",
    "qwen2",
    "qwen2 with windows",
    "gpt neox",
    "opt",
    "opt projected",
    "mistral",
    "gemma2",
    "granite",
]


def make(family, tokenizer=None, **changes):
    tokenizer = tokenizer or Letters(VOCAB)
    if family == "ours":
        policy = TransformerPolicy(
            TransformerConfig(VOCAB, CONTEXT, n_layer=2, n_head=2, n_embd=16), tokenizer=tokenizer
        )
        weights = policy.parameters()
    else:
        policy = HuggingFacePolicy(tiny(family, **changes), tokenizer)
        weights = policy.value_head.parameters()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return policy


def padded(texts, capacity=CONTEXT):
    observations = np.full((len(texts), capacity), VOCAB)
    for row, text in enumerate(texts):
        observations[row, : len(text)] = text
    return observations


def uncached(policy, texts):
    """Logits after each text, by one plain causal pass."""
    lengths = torch.tensor([len(text) for text in texts])
    with torch.no_grad():
        hidden = policy.hidden_states(torch.tensor([t for text in texts for t in text]), lengths)
        return policy.logits(hidden[lengths.cumsum(0) - 1])


def cached(policy, cache, texts):
    with torch.inference_mode():
        return policy.logits(policy.last_hidden(padded(texts), cache))

"""Tiny random models of the families that are tested, as policies."""

import numpy as np
import torch
from letters import Letters

from policies import TransformerConfig, TransformerPolicy
from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy
from textenv.tokenizers import SourceTokenizer

VOCAB, WIDTH, CONTEXT = 7, 16, 24
START, SEPARATOR = 0, 6
"""Of the encoder-decoders: what their decoder begins with, and what ends a source."""


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
    t5 = {
        "d_model": WIDTH,
        "d_kv": 4,
        "d_ff": 24,
        "num_heads": 4,
        "num_layers": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "n_positions": CONTEXT,
        "decoder_start_token_id": START,
        **{**small, "pad_token_id": 0},
    }
    bart = {
        "d_model": WIDTH,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 20,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
        "decoder_start_token_id": START,
        "forced_eos_token_id": None,
        **{**small, "pad_token_id": 3},
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
        "t5": (t.T5ForConditionalGeneration, t.T5Config, t5),
        "t5 gated": (
            t.T5ForConditionalGeneration,
            t.T5Config,
            {
                **t5,
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": False,
                "initializer_factor": 0.3,  # its logits are not scaled down
                "num_decoder_layers": 1,
            },
        ),
        "mt5": (t.MT5ForConditionalGeneration, t.MT5Config, {**t5, "initializer_factor": 0.3}),
        "bart": (t.BartForConditionalGeneration, t.BartConfig, bart),
        "mbart": (t.MBartForConditionalGeneration, t.MBartConfig, bart),
        "pegasus": (t.PegasusForConditionalGeneration, t.PegasusConfig, bart),
        "marian": (t.MarianMTModel, t.MarianConfig, bart),
    }
    model_class, config_class, shape = made[family]
    torch.manual_seed(0)
    model = model_class(config_class(**{**shape, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(generator=generator)
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
SOURCE_FAMILIES = ["t5", "t5 gated", "mt5", "bart", "mbart", "pegasus", "marian"]
"""Encoder-decoders."""


def make(family, tokenizer=None, **changes):
    tokenizer = tokenizer or Letters(VOCAB)
    if family == "ours":
        policy = TransformerPolicy(
            TransformerConfig(VOCAB, CONTEXT, n_layer=2, n_head=2, n_embd=16), tokenizer=tokenizer
        )
        weights = policy.parameters()
    elif family in SOURCE_FAMILIES:
        tokenizer = SourceTokenizer(tokenizer, after=[SEPARATOR])
        policy = EncoderDecoderPolicy(tiny(family, **changes), tokenizer)
        weights = policy.value_head.parameters()
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


def readable(policy, texts):
    """The texts, with a separator at the end where a policy needs one and they have none."""
    if not isinstance(policy, EncoderDecoderPolicy):
        return texts
    return [text if SEPARATOR in text else [*text[: CONTEXT - 1], SEPARATOR] for text in texts]


def uncached(policy, texts):
    """Logits after each text, by one pass over whole texts."""
    texts = readable(policy, texts)
    lengths = torch.tensor([len(text) for text in texts])
    with torch.no_grad():
        hidden = policy.hidden_states(torch.tensor([t for text in texts for t in text]), lengths)
        return policy.logits(hidden[lengths.cumsum(0) - 1])


def cached(policy, cache, texts):
    with torch.inference_mode():
        return policy.logits(policy.last_hidden(padded(readable(policy, texts)), cache))

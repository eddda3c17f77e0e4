"""A Llama model of transformers as a network of our own, with the same weights.

`HuggingFacePolicy` runs the model as it is. Our own network computes the same, with a decoding step
of compiled loops. Left out, with `UnsupportedModelError`: other families, even those that differ
little, and rotary positions that change with the longest text of a batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policies.rotary import NTK, Linear, Llama3, Rope, Scaling, YaRN, yarn_growth
from policies.transformer import TransformerConfig
from textenv.errors import UnsupportedModelError

_NAMES = {
    "self_attn.o_proj": "attn_out",
    "mlp.down_proj": "mlp_out",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
}
"""Parts of a layer, theirs and ours; the others are joined, see `weights_of_llama`."""


def config_of_llama(model: Any, context: int | None, vocab_size: int) -> TransformerConfig:
    """The shape of a `transformers.LlamaForCausalLM` as ours.

    Args:
        model: The model.
        context: Longest text; by default what its configuration says.
        vocab_size: Tokens of the vocabulary, from the beginning of its tables.

    Raises:
        UnsupportedModelError: It is of another family, or computes what our network does not.
    """
    config = model.config
    if config.model_type != "llama" or config.hidden_act != "silu":
        raise UnsupportedModelError(
            f"{type(model).__name__} of type {config.model_type!r} with {config.hidden_act!r} is "
            "no Llama: HuggingFacePolicy runs it as it is"
        )
    context = context or int(config.max_position_embeddings)
    return TransformerConfig.llama(
        vocab_size,
        context,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_embd=config.hidden_size,
        n_kv_head=config.num_key_value_heads,
        head_dim=config.head_dim,
        norm_eps=config.rms_norm_eps,
        mlp_width=config.intermediate_size,
        # A layer without a bias gets one of zeros where other layers have one.
        bias=bool(config.attention_bias or config.mlp_bias),
        rope=rope_of(config.rope_parameters, int(config.max_position_embeddings), context),
        tied=config.tie_word_embeddings,
    )


def rope_of(known: Mapping[str, Any], trained: int, context: int) -> Rope:
    """Rotary positions from the `rope_parameters` of a configuration of transformers.

    Args:
        known: The parameters, with `rope_type`, `rope_theta` and the numbers of the type.
        trained: The configuration's `max_position_embeddings`.
        context: Longest text that is to be read. `dynamic` changes with the longest text once that
            is longer than `trained`; here it is that of a text of this length.

    Raises:
        UnsupportedModelError: The type is another one, or only a part of a head is turned.
    """
    kind, factor = known.get("rope_type", "default"), known.get("factor")
    first = int(known.get("original_max_position_embeddings") or trained)
    scaling: Scaling | None
    if kind == "default" or (kind == "dynamic" and context <= trained):
        scaling = None
    elif kind == "linear":
        scaling = Linear(known["factor"])
    elif kind == "dynamic":
        scaling = NTK.at(context, trained, known["factor"])
    elif kind == "llama3":
        scaling = Llama3(
            known["factor"], first, known["low_freq_factor"], known["high_freq_factor"]
        )
    elif kind == "yarn":
        factor = trained / first if factor is None else factor
        betas = known.get("beta_fast") or 32.0, known.get("beta_slow") or 1.0
        whole = known.get("truncate", True)
        scaling = YaRN(factor, first, *betas, _magnitude(known, factor), whole)
    else:
        raise _not_ours(known)
    if known.get("partial_rotary_factor", 1.0) != 1.0:
        raise _not_ours(known)
    return Rope(known["rope_theta"], scaling)


def _not_ours(known: Mapping[str, Any]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"rotary positions of {dict(known)} are not among ours (linear, dynamic, yarn or llama3, "
        "on whole heads): HuggingFacePolicy runs the model as it is"
    )


def _magnitude(known: Mapping[str, Any], factor: float) -> float | None:
    """The factor of turned vectors, where YaRN's own is not asked for (DeepSeek's `mscale`)."""
    if known.get("attention_factor") is not None:
        return float(known["attention_factor"])
    if known.get("mscale") and known.get("mscale_all_dim"):
        return yarn_growth(factor, known["mscale"]) / yarn_growth(factor, known["mscale_all_dim"])
    return None


def weights_of_llama(model: Any, vocab_size: int) -> dict[str, Tensor]:
    """The weights of the model by the names of `policies.transformer.Transformer`."""
    theirs: dict[str, Tensor] = model.state_dict()

    def joined(layer: str, parts: tuple[str, ...], name: str) -> Tensor:
        return torch.cat([theirs[f"{layer}.{part}.{name}"] for part in parts])

    attention = tuple(f"self_attn.{part}_proj" for part in "qkv")
    mlp = ("mlp.gate_proj", "mlp.up_proj")
    ours = {
        "token_embedding.weight": theirs["model.embed_tokens.weight"][:vocab_size],
        "ln_f.weight": theirs["model.norm.weight"],
    }
    if not model.config.tie_word_embeddings:
        ours["head.weight"] = theirs["lm_head.weight"][:vocab_size]
    for number in range(model.config.num_hidden_layers):
        layer, block = f"model.layers.{number}", f"blocks.{number}"
        for parts, name in ((attention, "qkv"), (mlp, "mlp_in")):
            ours[f"{block}.{name}.weight"] = joined(layer, parts, "weight")
            if f"{layer}.{parts[0]}.bias" in theirs:
                ours[f"{block}.{name}.bias"] = joined(layer, parts, "bias")
        for part, name in _NAMES.items():
            for kind in ("weight", "bias"):
                if f"{layer}.{part}.{kind}" in theirs:
                    ours[f"{block}.{name}.{kind}"] = theirs[f"{layer}.{part}.{kind}"]
    return ours

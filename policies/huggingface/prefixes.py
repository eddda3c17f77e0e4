"""Adapters that are virtual tokens: prefix tuning, prompt tuning and prompt encoders.

Virtual tokens stand in front of every text, so their keys and values do not depend on it. They are
computed once, and every row begins with them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies import adapters
from policies.huggingface.registered_attention import reading
from policies.rows import Prefix, Recorded
from policies.sharing import whole_rows
from policies.whole_rows import WholeRows
from textenv.errors import AdapterError

PREFIX = "prefix.safetensors"
_AS_KEYS, _AS_EMBEDDINGS = ("PREFIX_TUNING",), ("PROMPT_TUNING", "P_TUNING")


def check_config(config: Any) -> None:
    """Refuse adapters with which the prefix cache would not be exact.

    Raises:
        AdapterError: `config` is such an adapter.
    """
    peft_type = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning and peft_type not in _AS_KEYS + _AS_EMBEDDINGS:
        raise AdapterError(
            f"adapters of type {peft_type} cannot be used with the prefix cache: use LoRA, or "
            "virtual tokens that are the same for every text (PrefixTuningConfig, "
            "PromptEncoderConfig, PromptTuningConfig)"
        )
    if getattr(config, "is_adaption_prompt", False):
        raise AdapterError("adaption prompts replace the attention: use LoRA or prefix tuning")


def virtual_tokens(model: Any) -> int:
    """How many virtual tokens the active adapter of `model` has."""
    config = _active(model)
    return 0 if config is None else int(config.num_virtual_tokens)


def prefix_of(model: Any) -> Prefix | None:
    """Keys and values of the active adapter's virtual tokens, with gradient if enabled."""
    config = _active(model)
    if config is None:
        return None
    prompt = model.get_prompt(batch_size=1)
    if config.peft_type.value in _AS_KEYS:
        if hasattr(prompt, "layers"):
            return [(layer.keys[0], layer.values[0]) for layer in prompt.layers]
        return [(keys[0], values[0]) for keys, values in prompt]
    return _encoded(model, prompt)


def _encoded(model: Any, embeddings: Tensor) -> Prefix:
    """Keys and values that the model computes from virtual embeddings (1, p, width)."""
    count, device = embeddings.shape[1], embeddings.device
    recorded = Recorded(WholeRows(whole_rows(torch.tensor([count], device=device))))
    base = adapters.base_model(model)
    with reading(recorded):
        base.base_model(
            inputs_embeds=embeddings.to(base.dtype),
            attention_mask=torch.zeros(1, 1, 1, 1, device=device),
            position_ids=torch.arange(count, device=device)[None],
            use_cache=False,
        )
    return recorded.prefix


class HasFixedPrefix(Protocol):
    """A policy whose virtual tokens can be replaced by fixed ones."""

    fixed_prefix: "FixedPrefix | None"


class FixedPrefix:
    """Setting of a reference: it computes with these virtual tokens, or none, not the adapter's."""

    def __init__(self, policy: HasFixedPrefix, prefix: Prefix | None):
        self.policy, self.prefix = policy, prefix

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """See `policies.adapter_view.Setting`."""
        before, self.policy.fixed_prefix = self.policy.fixed_prefix, self
        try:
            yield
        finally:
            self.policy.fixed_prefix = before

    def save(self, folder: Path) -> None:
        """See `policies.adapter_view.Setting`."""
        if self.prefix is not None:
            tensors: dict[str, Tensor] = {}
            for layer, pair in enumerate(self.prefix):
                for name, values in zip(("keys", "values"), pair, strict=True):
                    tensors[f"{layer}.{name}"] = values.contiguous()
            save_file(tensors, folder / PREFIX)

    def load(self, folder: Path) -> None:
        """See `policies.adapter_view.Setting`."""
        if self.prefix is not None:
            tensors = load_file(folder / PREFIX)
            self.prefix = [
                (tensors[f"{layer}.keys"], tensors[f"{layer}.values"])
                for layer in range(len(self.prefix))
            ]


def _active(model: Any) -> Any:
    if not hasattr(model, "peft_config"):
        return None
    config = model.active_peft_config
    return config if config.is_prompt_learning else None

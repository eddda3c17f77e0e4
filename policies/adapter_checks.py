"""Does an adapter leave the model as it is? Only then is the model without it a reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from textenv.errors import AdapterError

_TAKEN_OUT = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of LoRA that take a part out of the model's weights."""


def check_config(config: Any) -> None:
    """Refuse what is known to change more than adapters, before peft has touched the model.

    Raises:
        AdapterError: Without such an adapter, the model would not be what it was.
    """
    init = getattr(config, "init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(_TAKEN_OUT):
        raise AdapterError(
            f"init_lora_weights={init!r} takes a part out of the model's own weights and puts it "
            "into the adapter, so that the model without the adapter is no reference: use True, "
            "'gaussian', 'orthogonal', 'eva' or 'mica'"
        )
    if (bias := getattr(config, "bias", None)) not in (None, False, "none"):
        raise AdapterError(
            f"bias={bias!r} trains biases of the model itself, which stay as they are when the "
            "adapter is switched off: use bias='none' (lora_bias=True adds biases of LoRA's own)"
        )
    for option, why in (
        ("kasa_config", "changes the model's own weights"),
        ("layer_replication", "makes another model"),
        ("alora_invocation_tokens", "depends on a text as a whole, which is never read as one"),
    ):
        if (value := getattr(config, option, None)) is not None:
            raise AdapterError(f"{option}={value} {why}: leave it out")


@contextmanager
def model_unchanged(model: nn.Module) -> Iterator[None]:
    """Find out whether what is done in this context leaves the weights of `model` as they are.

    Raises:
        AdapterError: They have changed.
    """
    before = [(name, w, _sum(w)) for name, w in (*model.named_parameters(), *model.named_buffers())]
    yield
    if changed := [name for name, weight, value in before if _sum(weight) != value]:
        raise AdapterError(
            f"peft has changed weights of the model itself, such as {changed[0]}, so that the "
            "model without the adapter is no reference: load the model again, and initialise the "
            "adapter in another way, such as init_lora_weights=True"
        )


def _sum(weight: Tensor) -> int:
    """A number that changes with the bits of a tensor; a copy would take its memory again."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    plain = type(weight) in (Tensor, nn.Parameter) and weight.element_size() in whole
    if weight.is_meta or not plain:  # such as quantised weights, which have no bits to view
        return weight._version
    bits = weight.detach().flatten().view(whole[weight.element_size()])
    return int(bits.sum(dtype=torch.int64))


@contextmanager
def shaken(model: nn.Module) -> Iterator[None]:
    """Move what is trained at random, as training would, and put it back afterwards."""
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in trained:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_((0.1 * noise).to(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(trained, before, strict=True):
                parameter.copy_(value)

"""Activation checkpointing of a model that stays in evaluation.

Layers of transformers make checkpoints only in training, where dropout is on too. So their rates of
dropout are set to 0 once, and they are put in training for each pass with a gradient.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from policies import adapters
from policies.huggingface.registered_attention import reading, rows_now
from policies.rows import Rows


def allow_checkpoints(model: nn.Module) -> None:
    """Let the layers of `model` make checkpoints when they are in training."""
    for layer in _layers(model):
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(
            checkpoint,
            use_reentrant=False,  # the random state is kept: a training step may ask for dropout
            context_fn=partial(_same_again, layer),
        )
        # Rates that a layer applies itself, as in OPT and BART; its modules stay in evaluation.
        for rate in ("dropout", "activation_dropout"):
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)


@contextmanager
def checkpointed(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Make checkpoints in this pass, if they are wanted and it needs a gradient."""
    layers = _layers(model) if wanted and torch.is_grad_enabled() else []
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def _same_again(
    layer: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a layer's first and second pass.

    By the second one, another adapter may be active, and no rows are set.
    """
    return nullcontext(), _as_before(layer, adapters.in_force(layer), rows_now())


@contextmanager
def _as_before(layer: nn.Module, wanted: adapters.InForce, rows: Rows | None) -> Iterator[None]:
    with adapters.reinstated(layer, wanted), reading(rows):
        yield


def _layers(model: nn.Module) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]

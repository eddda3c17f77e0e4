"""Next-token training: a policy learns to continue text before it learns from rewards.

The text is one long stream of token ids; every step draws windows from it at random places and
fits the policy to the token that follows each token. Left out: dropout, several devices, streams
larger than memory, gradient accumulation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from policies import Policy

VALIDATION_WINDOWS = 64
"""The held-out loss is taken over at most so many windows, spread evenly over the text."""


@dataclass(frozen=True)
class PretrainingStep:
    """What one optimiser step did.

    Attributes:
        number: Steps so far, from 1.
        tokens: Tokens predicted so far.
        loss: Mean cross-entropy of this step's predictions in nats per token.
        learning_rate: The one that was used.
    """

    number: int
    tokens: int
    loss: float
    learning_rate: float


def pretraining_steps(
    policy: Policy,
    stream: NDArray[np.int64],
    *,
    total_tokens: int,
    window: int = 64,
    batch_size: int = 16,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.1,
    warmup: float = 0.05,
    max_grad_norm: float = 1.0,
    seed: int = 0,
) -> Iterator[PretrainingStep]:
    """Train `policy` on windows of `stream`, one optimiser step at a time.

    The recipe of GPT-2 and GPT-3: AdamW (Loshchilov and Hutter, 2019) with decay on matrices alone,
    a linear warm-up, then half a cosine to a tenth of the learning rate, clipped gradients.

    Args:
        policy: What learns; its value head is left alone.
        stream: Token ids, shape (N,), int64.
        total_tokens: Predictions to make in all, rounded up to whole steps.
        window: Tokens that the policy reads in a row.
        batch_size: Windows of a step.
        learning_rate: At its peak.
        weight_decay: Of matrices and embeddings.
        warmup: Share of the steps in which the learning rate rises.
        max_grad_norm: Gradients are scaled down to this norm.
        seed: Of the windows' places.

    Raises:
        ValueError: The stream is no longer than a window, the window is longer than the policy's
            context, or there is nothing to do.
    """
    if not 1 <= window <= policy.context:
        raise ValueError(f"window is {window}; the policy's context allows 1 to {policy.context}")
    if len(stream) <= window:
        raise ValueError(f"the stream has {len(stream)} tokens; a window needs {window + 1}")
    if total_tokens < 1:
        raise ValueError(f"total_tokens is {total_tokens}; it must be 1 or more")
    steps = math.ceil(total_tokens / (batch_size * window))
    optimizer = AdamW(_groups(policy, weight_decay), learning_rate, betas=(0.9, 0.95), fused=True)
    generator = np.random.default_rng(seed)
    for number in range(1, steps + 1):
        rate = learning_rate * learning_rate_factor(number / steps, warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = generator.integers(0, len(stream) - window, batch_size)
        loss = next_token_loss(policy, _windows(stream, starts, window, policy.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
        optimizer.step()
        yield PretrainingStep(number, number * batch_size * window, loss.item(), rate)


def next_token_loss(policy: Policy, windows: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each window's tokens after the first.

    Args:
        policy: Who predicts.
        windows: Token ids, shape (B, T + 1), int64: T tokens to read and one more.
    """
    inputs, targets = windows[:, :-1], windows[:, 1:]
    lengths = torch.full((len(windows),), inputs.shape[1], device=windows.device)
    logits = policy.logits(policy.hidden_states(inputs.flatten(), lengths))
    return F.cross_entropy(logits.float(), targets.flatten())


@torch.no_grad()
def held_out_loss(policy: Policy, stream: NDArray[np.int64], window: int = 64) -> float:
    """Mean cross-entropy in nats per token on text that was kept apart, shape (N,), int64."""
    window = min(window, len(stream) - 1)
    count = min(VALIDATION_WINDOWS, (len(stream) - 1) // window)
    starts = np.linspace(0, len(stream) - window - 1, count).astype(np.int64)
    return next_token_loss(policy, _windows(stream, starts, window, policy.device)).item()


def learning_rate_factor(done: float, warmup: float, floor: float = 0.1) -> float:
    """Linear warm-up to 1, then half a cosine down to `floor`; `done` runs from 0 to 1."""
    if done < warmup:
        return done / warmup
    rest = (done - warmup) / (1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * rest))


def _groups(policy: Policy, weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in policy.parameters() if p.requires_grad and p.dim() >= 2]
    vectors = [p for p in policy.parameters() if p.requires_grad and p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _windows(
    stream: NDArray[np.int64], starts: NDArray[np.int64], window: int, device: torch.device
) -> Tensor:
    """Windows (B, window + 1) of the stream beginning at `starts`, shape (B,)."""
    places = starts[:, None] + np.arange(window + 1)
    return torch.from_numpy(stream[places]).to(device)

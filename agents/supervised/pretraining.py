"""Next-token training: a policy learns to continue text before it learns from rewards.

The text is one long stream of token ids, in memory or mapped from a file. Every step draws windows
from random places of it and fits the policy to the token that follows each token. Left out:
dropout, several devices.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from agents.supervised.fitting import Fitting
from agents.supervised.token_stream import (
    StreamMixture,
    random_windows,
    shortest_of,
    windows_at,
)
from policies import Policy
from textenv.errors import PromptError

VALIDATION_WINDOWS = 64
"""The held-out loss uses at most this many windows, spread evenly over the text."""


@dataclass(frozen=True)
class PretrainingStep:
    """What one optimiser step did.

    Attributes:
        number: Number of the step, from 1.
        tokens: Tokens predicted so far.
        loss: Mean cross-entropy of this step's predictions in nats per token.
        learning_rate: Learning rate of this step.
    """

    number: int
    tokens: int
    loss: float
    learning_rate: float


def pretraining_steps(
    policy: Policy,
    stream: NDArray[np.integer] | StreamMixture,
    *,
    total_tokens: int,
    window: int = 64,
    batch_size: int = 16,
    accumulate: int = 1,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.1,
    warmup: float = 0.05,
    max_grad_norm: float = 1.0,
    precision: torch.dtype = torch.float32,
    seed: int = 0,
    fitting: Fitting | None = None,
) -> Iterator[PretrainingStep]:
    """Train `policy` on windows of `stream`, one optimiser step at a time.

    Args:
        policy: The policy to train; its value head stays as it is.
        stream: Token ids, shape (N,), any integers, or a mixture of several such streams; a memory
            map is read window by window.
        total_tokens: Predictions to make in all, rounded up to whole steps.
        window: Tokens that the policy reads in a row.
        batch_size: Windows of a forward pass.
        accumulate: Forward passes of an optimiser step.
        learning_rate: Peak learning rate; for it and the next four see `Fitting`.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        warmup: Share of the steps in which the learning rate rises.
        max_grad_norm: A gradient with a larger norm than this is scaled down to it.
        precision: dtype of the matrix products.
        seed: Seed of the windows' places; a step's windows depend on the seed and the step's number
            alone.
        fitting: A `Fitting` of your own, to save its state or to continue with a loaded one; it
            takes the place of the arguments from `learning_rate` to `precision`.

    Raises:
        PromptError: The stream is not longer than a window.
        ValueError: The window is longer than the policy's context, or `total_tokens` is below 1.
    """
    if not 1 <= window <= policy.context:
        raise ValueError(f"window is {window}; the policy's context allows 1 to {policy.context}")
    if (length := shortest_of(stream)) <= window:
        raise PromptError(f"the stream has {length} tokens; a window needs {window + 1}")
    if total_tokens < 1:
        raise ValueError(f"total_tokens is {total_tokens}; it must be 1 or more")
    tokens = accumulate * batch_size * window
    fitting = fitting or Fitting(
        policy,
        steps=math.ceil(total_tokens / tokens),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        max_grad_norm=max_grad_norm,
        precision=precision,
    )
    while fitting.done < fitting.steps:
        # A generator for each step: a run that is resumed draws the same windows, with no state
        # of a generator to save.
        generator = np.random.default_rng([seed, fitting.done])
        step = fitting.step(
            next_token_loss(policy, random_windows(stream, generator, batch_size, window))
            for _ in range(accumulate)
        )
        yield PretrainingStep(step.number, step.number * tokens, step.loss, step.learning_rate)


def next_token_loss(policy: Policy, windows: NDArray[np.int64] | Tensor) -> Tensor:
    """Mean cross-entropy in nats of each window's tokens after the first.

    Args:
        policy: The policy that predicts.
        windows: Token ids, shape (B, T + 1), int64: T tokens to read and one more.
    """
    windows = torch.as_tensor(windows, device=policy.device)
    # One token more than is read: the last one is a target alone.
    inputs, targets = windows[:, :-1], windows[:, 1:]
    lengths = torch.full((len(windows),), inputs.shape[1], device=windows.device)
    logits = policy.logits(policy.hidden_states(inputs.flatten(), lengths))
    # In float32 even under autocast: the log-sum-exp over a vocabulary needs the digits.
    return F.cross_entropy(logits.float(), targets.flatten())


@torch.no_grad()
def held_out_loss(
    policy: Policy,
    stream: NDArray[np.integer],
    window: int = 64,
    windows: int = VALIDATION_WINDOWS,
    batch_size: int = 64,
) -> float:
    """Mean cross-entropy in nats per token on text that was kept apart.

    Args:
        policy: The policy that predicts.
        stream: Token ids, shape (N,), N >= 2.
        window: Tokens read in a row; the first ones of a window are predicted from few.
        windows: Number of windows at most, spread evenly over the text.
        batch_size: Windows of a forward pass.
    """
    window = min(window, len(stream) - 1)
    count = min(windows, (len(stream) - 1) // window)
    # Evenly spread and not drawn, so that losses of different steps compare the same text.
    starts = np.linspace(0, len(stream) - window - 1, count).astype(np.int64)
    losses = [
        next_token_loss(policy, windows_at(stream, some, window)).item() * len(some)
        for some in np.split(starts, range(batch_size, count, batch_size))
    ]
    return sum(losses) / count

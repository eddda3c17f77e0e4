"""Next-token training: a policy learns to continue text before it learns from rewards.

The text is one long stream of token ids, in memory or mapped from a file. Every step draws windows
from random places of it and fits the policy to the token that follows each token. In a process
group the windows of a step are divided among the processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from agents.distribution import Ranks
from agents.supervised.fitting import FitOptions, Fitting
from agents.supervised.schedules import BatchRamp
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
    ramp: BatchRamp | None = None,
    seed: int = 0,
    fitting: Fitting | None = None,
    **options: Unpack[FitOptions],
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
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        ramp: Steps begin with fewer windows; all have `accumulate * batch_size` if None.
        seed: Seed of the windows' places, and of what is dropped; a step's windows depend on the
            seed and the step's number alone.
        fitting: A `Fitting` of your own, to save its state or to continue with a loaded one; it
            takes the place of `learning_rate`, `weight_decay` and `options`.
        **options: Optimiser, schedule, warm-up, clipping, number type, dropout; see `Fitting`.

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
    full = accumulate * batch_size
    fitting = fitting or Fitting(
        policy,
        steps=steps_of_tokens(total_tokens, window, full, ramp),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        **options,
    )
    tokens = 0
    for number, size in enumerate(_batch_sizes(window, full, ramp)):
        if number >= fitting.steps:
            return
        tokens += size * window
        if number < fitting.done:
            continue
        # A generator for each step: a run that is resumed draws the same windows, with no state
        # of a generator to save.
        generator = np.random.default_rng([seed, fitting.done])
        step = fitting.step(_losses(policy, stream, generator, size, batch_size, window))
        yield PretrainingStep(step.number, tokens, step.loss, step.learning_rate)


def steps_of_tokens(
    total_tokens: int, window: int, full: int, ramp: BatchRamp | None = None
) -> int:
    """Steps that make `total_tokens` predictions or more.

    Args:
        total_tokens: Predictions to make in all.
        window: Tokens of a window.
        full: Windows of a step at the end of the ramp, or of all without one.
        ramp: How it grows at first.
    """
    tokens = number = 0
    for size in _batch_sizes(window, full, ramp):
        if tokens >= total_tokens:
            break
        tokens, number = tokens + size * window, number + 1
    return number


def _batch_sizes(window: int, full: int, ramp: BatchRamp | None) -> Iterator[int]:
    """Windows of each step, for ever."""
    tokens = 0
    while True:
        size = full if ramp is None else ramp.windows(tokens, full)
        tokens += size * window
        yield size


def _losses(
    policy: Policy,
    stream: NDArray[np.integer] | StreamMixture,
    generator: np.random.Generator,
    size: int,
    most: int,
    window: int,
) -> Iterator[Tensor]:
    """Losses of passes of at most `most` windows, whose mean is that of all `size` windows."""
    ranks = Ranks.readers()
    passes = [most] * (size // most) + [size % most] * (size % most > 0)
    for count in passes:
        drawn = random_windows(stream, generator, count, window)
        own = np.array_split(drawn, ranks.size)[ranks.rank]
        # A rank without a window takes part in the pass all the same; its loss counts nothing.
        loss = next_token_loss(policy, own if len(own) else drawn[:1])
        loss = ranks.summed(loss if len(own) == count else len(own) / count * loss)
        share = count * len(passes) / size
        yield loss if share == 1 else share * loss


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

"""The next-token loss of a text, for optimiser steps on a rollout and on that text."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithm import StepTaker
from agents.distribution.shares import padded
from agents.optimisation.micro_batches import in_parts
from agents.supervised.pretraining import next_token_loss
from agents.supervised.token_stream import random_windows


def text_loss(
    trainer: StepTaker, stream: NDArray[np.integer], *, windows: int, length: int
) -> Tensor:
    """Mean next-token loss over random windows of a text, a scalar with gradient.

    Args:
        trainer: Its policy reads the text, within its `micro_batch_tokens` and precision.
        stream: Ids of the text, shape (N,).
        windows: Number of windows to read.
        length: Tokens of a window.
    """
    drawn, ranks = random_windows(stream, trainer.generator, windows, length), trainer.readers
    together = max((trainer.micro_batch_tokens or drawn.size) // length, 1)
    shares = [
        np.split(share, range(together, len(share), together)) if len(share) else []
        for share in np.array_split(drawn, ranks.size)
    ]
    parts, count = padded(shares, ranks.rank, drawn[:1])

    # Sums and one division at the end, since the last part may be smaller than the others.
    def summed(part: NDArray[np.int64]) -> Tensor:
        with trainer.precision.autocast():
            return len(part) * next_token_loss(trainer.policy, part)

    sums = in_parts(summed, parts)
    own = torch.stack([*sums[:count], *(0 * spare for spare in sums[count:])]).sum()
    return ranks.summed(own) / windows

"""The next-token loss of a text, for optimiser steps on a rollout and on that text."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithm import StepTaker
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
    drawn = random_windows(stream, trainer.generator, windows, length)
    together = max((trainer.micro_batch_tokens or drawn.size) // length, 1)
    parts = np.split(drawn, range(together, windows, together))

    # Sums and one division at the end, since the last part may be smaller than the others.
    def summed(part: NDArray[np.int64]) -> Tensor:
        with trainer.precision.autocast():
            return len(part) * next_token_loss(trainer.policy, part)

    return torch.stack(in_parts(summed, parts)).sum() / windows

"""A run in TensorBoard."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.runs.metrics import tag_of
from agents.runs.samples import Sample, samples_markdown
from textenv.imports import optional


class TensorBoardLogger:
    """Curves, samples and histograms for TensorBoard: `tensorboard --logdir folder`.

    The step is the number of chosen tokens.

    Args:
        folder: Where the event file goes. A resumed run adds a second file to it, and TensorBoard
            shows both as one curve, without the points of updates that were done again.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path):
        with optional(
            "tensorboard", extra="train", purpose="TensorBoardLogger", instead="use CSVLogger"
        ):
            # Takes seconds to import, so not at the top.
            from torch.utils.tensorboard import SummaryWriter
        self._begin = partial(SummaryWriter, str(folder))
        self._writer: Any = None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of every number, under its tag."""
        writer = self._at(step)
        for name, value in numbers.items():
            writer.add_scalar(tag_of(name), value, step)
        writer.flush()

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Add the answers to the texts."""
        writer = self._at(step)
        writer.add_text("samples", samples_markdown(samples), step)
        writer.flush()

    def log_histogram(self, step: int, tag: str, values: NDArray[np.float32]) -> None:
        """Add a histogram."""
        writer = self._at(step)
        writer.add_histogram(tag, values, step)
        writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _at(self, step: int) -> Any:
        """The writer; at first it hides what is there from `step` on."""
        if self._writer is None:
            self._writer = self._begin(purge_step=step)
        return self._writer

"""What a logger is.

A logger is anything with `log` and `close`. It may also take texts, with `log_samples`, and
distributions, with `log_histogram`. What it was given is kept even if the process is killed right
after, where the library behind it allows that: nothing waits in a buffer.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agents.runs.metrics import numbers
from agents.runs.samples import Sample
from agents.runs.update import Update


class Logger(Protocol):
    """What `agents.runs.progress.learn` asks of a logger.

    class Best:
        def __init__(self):
            self.score = float("-inf")

        def log(self, step, numbers):
            self.score = max(self.score, numbers.get("score", self.score))

        def close(self):
            print("best score of an update:", self.score)
    """

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write down `numbers`, measured when `step` tokens had been chosen."""
        ...

    def close(self) -> None:
        """Write what is left and let go of files and threads; nothing is logged afterwards."""
        ...


@runtime_checkable
class SampleLogger(Protocol):
    """What a logger that takes texts has as well."""

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write down some answers, the best first, given when `step` tokens had been chosen."""
        ...


@runtime_checkable
class HistogramLogger(Protocol):
    """What a logger that takes distributions has as well."""

    def log_histogram(self, step: int, tag: str, values: NDArray[np.float32]) -> None:
        """Write down the distribution of `values`, one or more finite numbers, shape (n,)."""
        ...


SCORES_TAG = "score/histogram"
"""The tag of the scores of an update."""


def log_update(loggers: Sequence[Logger], update: Update, samples: Sequence[Sample] = ()) -> None:
    """Give every logger what it takes of an update.

    Args:
        loggers: Any number of them.
        update: Whose numbers and scores they get.
        samples: Answers for those that take texts; none are logged if there are none.
    """
    named = numbers(update)
    for logger in loggers:
        logger.log(update.tokens, named)
        if isinstance(logger, SampleLogger) and samples:
            logger.log_samples(update.tokens, samples)
        if isinstance(logger, HistogramLogger) and update.scores is not None and len(update.scores):
            logger.log_histogram(update.tokens, SCORES_TAG, update.scores)

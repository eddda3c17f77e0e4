"""What a logger is.

A logger is anything with `log` and `close`. It may also take texts, with `log_samples`,
distributions, with `log_histogram`, and the error that ended a run, with `close_failed`. What it
was given is kept even if the process is killed right after, where the library behind it allows
that: nothing waits in a buffer.

What fails in a logger, such as a service that does not answer, is a warning and never the end of a
run. The call is not repeated, so a point may be missing; the next update is logged again.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agents.runs.metrics import EVALUATION, numbers
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
    """A logger that takes texts."""

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write down some answers, the best first, given when `step` tokens had been chosen."""
        ...


@runtime_checkable
class HistogramLogger(Protocol):
    """A logger that takes distributions."""

    def log_histogram(self, step: int, tag: str, values: NDArray[np.float32]) -> None:
        """Write down the distribution of `values`, one or more finite numbers, shape (n,)."""
        ...


@runtime_checkable
class FailureLogger(Protocol):
    """A logger that shows how a run ended."""

    def close_failed(self, error: BaseException) -> None:
        """Do what `close` does, and say that this ended the run; called in its place."""
        ...


SCORES_TAG = "score/histogram"
"""The tag of the scores of an update."""


def log_update(loggers: Sequence[Logger], update: Update, samples: Sequence[Sample] = ()) -> None:
    """Give every logger what it takes of an update.

    Args:
        loggers: Any number of loggers.
        update: The update whose numbers and scores they get.
        samples: Answers, for loggers that take texts; may be empty.

    Warns:
        RuntimeWarning: A logger raised an error. The others get the update all the same.
    """
    named = numbers(update)
    for logger in loggers:
        with _errors_as_warnings(logger, "log an update"):
            logger.log(update.tokens, named)
            if isinstance(logger, SampleLogger) and samples:
                logger.log_samples(update.tokens, samples)
            scores = update.scores
            if isinstance(logger, HistogramLogger) and scores is not None and len(scores):
                logger.log_histogram(update.tokens, SCORES_TAG, scores)


def log_evaluation(
    loggers: Sequence[Logger], step: int, score: float, name: str = EVALUATION
) -> None:
    """Give every logger the mean score of an evaluation during training.

    Args:
        loggers: Any number of loggers.
        step: Tokens chosen so far.
        score: The mean score.
        name: What it is called.

    Warns:
        RuntimeWarning: A logger raised an error. The others get the score all the same.
    """
    for logger in loggers:
        with _errors_as_warnings(logger, "log an evaluation"):
            logger.log(step, {name: score})


def close_logger(logger: Logger, error: BaseException | None = None) -> None:
    """Close a logger at the end of a run.

    Args:
        logger: Which one.
        error: What ended the run, for loggers that show it; None after a run that was completed.

    Warns:
        RuntimeWarning: It raised an error.
    """
    with _errors_as_warnings(logger, "be closed"):
        if error is not None and isinstance(logger, FailureLogger):
            logger.close_failed(error)
        else:
            logger.close()


@contextmanager
def _errors_as_warnings(logger: Logger, task: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The same text each time, so that Python shows it once and not at every update.
        message = f"{type(logger).__name__} could not {task}: {type(error).__name__}: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=4)  # 1: here, 2, 3: contextlib

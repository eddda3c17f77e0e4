"""Where a training run goes: the terminal, a CSV file, TensorBoard, W&B, MLflow, Trackio.

docs/metrics.md explains the numbers and shows how to write a logger of one's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from agents.runs.loggers.console import ConsoleLogger
from agents.runs.loggers.csv_file import CSVLogger
from agents.runs.loggers.mlflow import MLflowLogger
from agents.runs.loggers.protocol import (
    SCORES_TAG,
    FailureLogger,
    HistogramLogger,
    Logger,
    SampleLogger,
    close_logger,
    log_evaluation,
    log_update,
)
from agents.runs.loggers.tensorboard import TensorBoardLogger
from agents.runs.loggers.trackio import TrackioLogger
from agents.runs.loggers.wandb import WandbLogger
from textenv.imports import installed, missing_extra

__all__ = [
    "LOGGERS",
    "SCORES_TAG",
    "CSVLogger",
    "ConsoleLogger",
    "FailureLogger",
    "HistogramLogger",
    "Logger",
    "MLflowLogger",
    "SampleLogger",
    "TensorBoardLogger",
    "TrackioLogger",
    "WandbLogger",
    "check_loggers",
    "close_logger",
    "log_evaluation",
    "log_update",
    "loggers_of_run",
]

LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": lambda folder, config: TensorBoardLogger(folder / "tensorboard"),
    "wandb": lambda folder, config: WandbLogger(folder, config=config),
    "mlflow": lambda folder, config: MLflowLogger(folder, config=config),
    "trackio": lambda folder, config: TrackioLogger(folder, config=config),
}
"""Loggers by name: each is made from a run's folder and its settings."""


def check_loggers(names: Sequence[str]) -> None:
    """Find out before a long run whether the packages behind these loggers are there.

    Args:
        names: Keys of `LOGGERS`, which are also the names of the modules.

    Raises:
        MissingExtraError: One is not.
    """
    for name in names:
        if not installed(name):
            extra = "train" if name == "tensorboard" else name
            raise missing_extra(f"the {name} package", extra=extra, purpose=f"the logger {name}")


@contextmanager
def loggers_of_run(
    folder: Path, names: Sequence[str] = ("tensorboard",), config: Mapping[str, Any] | None = None
) -> Iterator[list[Logger]]:
    """The CSV file of a run and the loggers of these names, closed at the end whatever happens.

    If an exception leaves the context, services are told that the run failed or was stopped. A
    logger that cannot be closed is a warning, and the others are closed. Save what must not be lost
    inside the context: a service may take long to close.

    Args:
        folder: The run's folder.
        names: Keys of `LOGGERS`.
        config: The run's settings, for the services that show them.

    Raises:
        ValueError: There is no logger of this name.
        MissingExtraError: The package behind one is not installed.
    """
    if unknown := [name for name in names if name not in LOGGERS]:
        raise ValueError(f"there is no logger {unknown[0]!r}; there are {', '.join(LOGGERS)}")
    with ExitStack() as stack:
        loggers: list[Logger] = [CSVLogger(folder / "metrics.csv")]
        for name in names:
            loggers.append(LOGGERS[name](folder, config or {}))
            stack.push(partial(_close, loggers[-1]))
        yield loggers


def _close(logger: Logger, kind: object, error: BaseException | None, trace: object) -> None:
    """`close_logger` as the stack calls it; the exception goes on."""
    close_logger(logger, error)

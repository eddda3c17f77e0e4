"""A run in Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.runs.loggers.identity import new_id, remembered
from agents.runs.metrics import tag_of
from agents.runs.samples import Sample
from textenv.imports import optional

STEP = "tokens"
"""The horizontal axis of every curve."""

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended."""


class WandbLogger:
    """Curves, tables of samples and histograms in Weights & Biases.

    The axis is the number of chosen tokens. A run that is resumed in the same folder stays the
    same run, except offline, where it becomes a second one.

    Args:
        folder: The run's folder; its name is the run's name, and W&B keeps its files in it.
        project: The project in W&B.
        config: Settings, shown with the run.
        mode: "online", "offline" (`wandb sync` sends it later) or "disabled"; the environment
            variable WANDB_MODE, or "online", if None.

    Raises:
        MissingExtraError: The package wandb is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str = "textenv",
        config: Mapping[str, Any] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ):
        with optional("wandb", extra="wandb", purpose="WandbLogger", instead="use CSVLogger"):
            import wandb
        self._wandb = wandb
        folder = Path(folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)  # W&B would take another one
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=remembered(folder / "wandb-run-id", new_id),
            resume=None if mode == "offline" else "allow",
            dir=str(folder),
            config=dict(config or {}),
            mode=mode,
            settings=wandb.Settings(console="off"),  # a progress bar is not a log
        )
        # Points may come twice after a resumption, and W&B's own step could not go back.
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of every number, under its tag."""
        self._run.log({STEP: step} | {tag_of(name): value for name, value in numbers.items()})

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Add a table of the answers."""
        rows = [[sample.prompt, sample.text, sample.score] for sample in samples]
        table = self._wandb.Table(columns=["prompt", "text", "score"], data=rows)
        self._run.log({STEP: step, "samples": table})

    def log_histogram(self, step: int, tag: str, values: NDArray[np.float32]) -> None:
        """Add a histogram."""
        self._run.log({STEP: step, tag: self._wandb.Histogram(values)})

    def close(self) -> None:
        """End the run. A process of W&B sends or writes what is left, in a moment."""
        self._run.finish()

    def close_failed(self, error: BaseException) -> None:
        """End the run, which is shown as failed: its exit code is not 0."""
        self._run.finish(exit_code=1 if isinstance(error, Exception) else INTERRUPTED)

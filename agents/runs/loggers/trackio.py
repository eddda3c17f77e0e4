"""A run in Trackio."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.runs.loggers.identity import new_id, remembered
from agents.runs.metrics import tag_of
from agents.runs.samples import Sample
from textenv.imports import optional


class TrackioLogger:
    """Curves, tables of samples and histograms in Trackio; `trackio show` opens them.

    The step is the number of chosen tokens. A run that is resumed in the same folder stays the
    same run. Trackio keeps its files in a folder of its own, which the environment variable
    TRACKIO_DIR names.

    Args:
        folder: The run's folder; its name and eight random letters are the run's name.
        project: The project in Trackio.
        config: Settings, shown with the run.

    Raises:
        MissingExtraError: The package trackio is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str = "textenv",
        config: Mapping[str, Any] | None = None,
    ):
        with optional("trackio", extra="trackio", purpose="TrackioLogger", instead="use CSVLogger"):
            import trackio
        self._trackio = trackio
        folder = Path(folder).resolve()
        # Trackio knows a run by its name alone, and folders in two places may have one name.
        name = remembered(folder / "trackio-run-name", lambda: f"{folder.name}-{new_id()}")
        self._run = trackio.init(
            project=project,
            name=name,
            config=dict(config or {}),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of every number, under its tag."""
        self._run.log({tag_of(name): value for name, value in numbers.items()}, step=step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Add a table of the answers."""
        rows = [[sample.prompt, sample.text, sample.score] for sample in samples]
        table = self._trackio.Table(columns=["prompt", "text", "score"], data=rows)
        self._run.log({"samples": table}, step=step)

    def log_histogram(self, step: int, tag: str, values: NDArray[np.float32]) -> None:
        """Add a histogram."""
        self._run.log({tag: self._trackio.Histogram(values)}, step=step)

    def close(self) -> None:
        """Write what is left, and end the run; Trackio does not show how it ended."""
        self._run.finish()

"""A run in MLflow."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.runs.loggers.identity import remembered
from agents.runs.metrics import tag_of
from agents.runs.samples import Sample, samples_markdown
from textenv.imports import optional

LONGEST_PARAMETER = 6000
"""Characters of a parameter that MLflow keeps."""

MOST_PARAMETERS = 100
"""Parameters that MLflow takes at once."""


class MLflowLogger:
    """Curves and samples in MLflow; samples are texts among the artifacts.

    The step is the number of chosen tokens. MLflow has no histograms. A run that is resumed in the
    same folder stays the same run.

    Args:
        folder: The run's folder; its name is the run's name.
        project: The experiment in MLflow, made if it does not exist.
        config: Settings, logged as the run's parameters.
        tracking_uri: Where MLflow keeps its runs, such as "sqlite:///mlflow.db" or a server's
            address; the environment variable MLFLOW_TRACKING_URI, or MLflow's default, if None.

    Raises:
        MissingExtraError: The package mlflow-skinny (or mlflow) is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str = "textenv",
        config: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ):
        with optional(
            "mlflow-skinny", extra="mlflow", purpose="MLflowLogger", instead="use CSVLogger"
        ):
            from mlflow import MlflowClient, entities
        self._metric = entities.Metric
        self._client = MlflowClient(tracking_uri)
        folder = Path(folder).resolve()

        def begin() -> str:
            experiment = self._client.get_experiment_by_name(project)
            number = experiment and experiment.experiment_id
            number = number or self._client.create_experiment(project)
            run = self._client.create_run(number, run_name=folder.name)
            texts = {name: str(value)[:LONGEST_PARAMETER] for name, value in (config or {}).items()}
            parameters = [entities.Param(_allowed(name), text) for name, text in texts.items()]
            for start in range(0, len(parameters), MOST_PARAMETERS):
                some = parameters[start : start + MOST_PARAMETERS]
                self._client.log_batch(run.info.run_id, params=some)
            return run.info.run_id

        self._run = remembered(folder / "mlflow-run-id", begin)
        self._client.update_run(self._run, status="RUNNING")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of every number, under its tag."""
        now = int(1000 * time.time())
        points = [
            self._metric(_allowed(tag_of(name)), float(value), now, step)
            for name, value in numbers.items()
        ]
        self._client.log_batch(self._run, metrics=points)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write the answers to an artifact, a page of Markdown for each step."""
        self._client.log_text(self._run, samples_markdown(samples), f"samples/{step:012}.md")

    def close(self) -> None:
        """End the run, which is shown as FINISHED."""
        self._client.set_terminated(self._run)

    def close_failed(self, error: BaseException) -> None:
        """End the run, which is shown as FAILED, or as KILLED after Ctrl-C."""
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        self._client.set_terminated(self._run, status)


def _allowed(name: str) -> str:
    """The name with an underscore for each character that MLflow does not take."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)

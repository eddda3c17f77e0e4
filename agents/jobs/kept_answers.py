"""The answers of `textenv eval` while they are given, saved beside the file of `--json`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from agents.commands.evaluate import EvaluateSettings
from agents.evaluation.answers import Evaluation
from agents.jobs.going_on import GoingOn, unfinished
from agents.runs.state_files import read_state, write_state

ANSWERS = "answers"

OnBatch: TypeAlias = Callable[[str, Evaluation], object]
"""Takes the name of a row and its evaluation so far."""


class KeptAnswers:
    """What has been answered; without `--json` it is not saved.

    Args:
        settings: The options of `textenv eval`.
        console: Where to say what is saved.

    Attributes:
        rows: The evaluation of each row so far, by its name.

    Raises:
        CheckpointError: An evaluation of other options is not done, or what it saved is damaged.
        OptionError: `--save-every` cannot be read.
    """

    def __init__(self, settings: EvaluateSettings, console: Console):
        self.rows: dict[str, Evaluation] = {}
        self._work: GoingOn | None = None
        path = settings.output.json
        if path is None:
            return
        folder = path.with_name(f"{path.name}.unfinished")
        self._work = unfinished(folder, settings, settings.output, console)
        if self._work.saved is not None:
            rows = read_state(self._work.saved, ANSWERS)["rows"]
            self.rows = {name: Evaluation.of(state) for name, state in rows.items()}
            console.print(f"Going on after answer {self.count:,}.")

    @property
    def count(self) -> int:
        """Answers so far."""
        return sum(len(evaluation.samples) for evaluation in self.rows.values())

    @contextmanager
    def saved_on_the_way(self) -> Iterator[OnBatch]:
        """While answers are given: yields what takes them after each batch."""
        if self._work is None:
            yield self.rows.__setitem__
            return
        with self._work.saving_by(self._write, self.count, unit="answer", at_first=False) as saving:

            def on_batch(row: str, so_far: Evaluation) -> None:
                self.rows[row] = so_far
                saving.after(self.count)

            yield on_batch

    def finished(self) -> None:
        """The figures are written: the answers are not needed any more."""
        if self._work is not None:
            self._work.finished()

    def _write(self, folder: Path) -> None:
        rows = {name: evaluation.state() for name, evaluation in self.rows.items()}
        write_state(folder, ANSWERS, {"rows": rows})

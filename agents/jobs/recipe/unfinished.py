"""What is left of a stage that was stopped while it was made: its long parts, saved on the way."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from agents.commands.shared import Saved
from agents.jobs.going_on import GoingOn, part_of_stage

FOLDER = "unfinished"
"""In the folder of a run: a folder for each stage that is being made."""


class UnfinishedStages:
    """Saves the parts of stages that are being made, in the order in which they begin.

    A stage may ask for another one while it is made.

    Args:
        folder: Of the run.
        saving: How often.
        console: Where to say what is saved.
    """

    def __init__(self, folder: Path, saving: Saved, console: Console):
        self._folder, self._saving, self._console = folder / FOLDER, saving, console
        self._made: list[tuple[str, str]] = []
        self._parts: list[int] = []

    @contextmanager
    def stage(self, name: str, key: str) -> Iterator[None]:
        """While a stage is made; once it is, what its parts have saved is removed.

        Args:
            name: Of the stage.
            key: Of all that it is made from.
        """
        self._made.append((name, key))
        self._parts.append(0)
        try:
            yield
            shutil.rmtree(self._folder / name, ignore_errors=True)
            if self._folder.exists() and not any(self._folder.iterdir()):
                self._folder.rmdir()
        finally:
            self._made.pop()
            self._parts.pop()

    def part(self) -> GoingOn:
        """The next part of the stage that is being made."""
        name, key = self._made[-1]
        number = self._parts[-1]
        self._parts[-1] += 1
        folder = self._folder / name / str(number)
        return part_of_stage(folder, key, self._saving, self._console)

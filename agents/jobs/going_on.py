"""Work that goes on where it was stopped, when the same command is given again."""

import ast
import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.commands.parsing import places_of, to_kept
from agents.commands.shared import Saved
from agents.distribution import Ranks
from agents.distribution.checkpoints import of_ranks
from agents.runs.checkpoints import Checkpoints, checksum
from agents.runs.saving import Saving, Schedule
from agents.supervised.fitting import Fitting
from textenv.errors import CheckpointError
from textenv.files import reason

CHECKPOINT, STATE = "checkpoint", "run.json"
MAY_CHANGE = {"save_every", "keep", "device", "shard", "report"}
"""Options that a run which goes on may be given other values of."""
WRITTEN = {"out", "json", "votes"}
"""Options that name what is written."""

PIECES, PIECE = 64, 1 << 20
"""Of a larger file than both together so many pieces of so many bytes are compared."""

SAME_COMMAND = "The same command goes on with it."


class GoingOn:
    """Work that is saved on the way, and what was saved of it before.

    Args:
        checkpoints: Where.
        options: How often.
        made_from: What the work depends on, noted in each checkpoint.
        console: Where to say what is saved.

    Attributes:
        saved: The checkpoint to go on from; None at the beginning.
        before: What that was made from.
        numbers: What else was noted in it.

    Raises:
        CheckpointError: All checkpoints are damaged, or they are those of other work.
        OptionError: `--save-every` cannot be read.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        options: Saved,
        made_from: Mapping[str, str],
        console: Console,
    ):
        self.checkpoints, self.schedule = checkpoints, Schedule.of(options.save_every)
        self.made_from, self.console = dict(made_from), console
        self.before: dict[str, str] = self.made_from
        self.numbers: dict[str, Any] = {}
        self.saved = checkpoints.newest()
        if self.saved is None:
            return
        try:
            state = json.loads((self.saved / STATE).read_text(encoding="utf-8"))
            self.before, self.numbers = state["made_from"], state["numbers"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.saved} was not written by this command: {reason(error)}; choose another "
                "folder"
            ) from error

    def saving(self, *fittings: Fitting, numbers: Callable[[], dict[str, Any]] = dict) -> Saving:
        """What saves fittings that are done one after the other.

        They are put where they were when they were saved.

        Args:
            *fittings: All of the work.
            numbers: What else it has to remember, as JSON holds it.
        """
        places = [str(number) for number in range(len(fittings))]
        if self.saved is not None:
            for fitting, place in zip(fittings, places, strict=True):
                if (self.saved / place).exists():
                    fitting.load(self.saved / place)
                    fitting.load_weights(self.saved / place)
        done, steps = sum(f.done for f in fittings), sum(f.steps for f in fittings)
        if self.saved is not None:
            self.tell(done, steps)

        def write(folder: Path) -> None:
            for fitting, place in zip(fittings, places, strict=True):
                if fitting.done:  # the others are as they were made
                    fitting.save(folder / place)
                    fitting.save_weights(folder / place)

        return self.saving_by(write, done, numbers)

    def tell(self, done: int, steps: int) -> None:
        """Say where the work goes on."""
        self.console.print(f"Going on after step {done:,} of {steps:,}.")

    def saving_by(
        self,
        write: Callable[[Path], object],
        done: int,
        numbers: Callable[[], dict[str, Any]] = dict,
        **options: Any,
    ) -> Saving:
        """What saves work by a function of its own.

        Args:
            write: Writes the work's state.
            done: Updates that are done.
            numbers: What else it has to remember, as JSON holds it.
            **options: Other arguments of `Saving`.
        """

        def all_of_it(folder: Path) -> None:
            write(folder)
            if Ranks.found().first:
                state = {"made_from": self.made_from, "numbers": numbers()}
                (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")

        return Saving(
            self.checkpoints,
            all_of_it,
            self.schedule,
            self.console,
            SAME_COMMAND,
            done=done,
            **options,
        )

    def finished(self) -> None:
        """What came of the work is written: nothing is left to go on with."""
        self.checkpoints.remove()


def unfinished(folder: Path, settings: Any, options: Saved, console: Console) -> GoingOn:
    """The work of a command.

    Args:
        folder: Where its newest checkpoint stands.
        settings: All options of the command, and with them the files that they name.
        options: How often to save.
        console: Where to say what is saved.

    Raises:
        CheckpointError: The folder holds work that is not done and was begun with other options or
            other files, or all its checkpoints are damaged.
        OptionError: `--save-every` cannot be read.
    """
    given = {n: value for n, value in to_kept(settings).items() if n not in MAY_CHANGE}
    made_from = {name: str(value) for name, value in given.items()}
    for name in sorted(places_of(settings) - WRITTEN - MAY_CHANGE):
        for value in given[name] if isinstance(given[name], list) else [given[name]]:
            made_from |= _checksums(value)
    work = GoingOn(of_ranks(Checkpoints(folder, options.keep)), options, made_from, console)
    names = [name for name in made_from if work.before.get(name) != made_from[name]]
    if names:
        typed = [as_typed(name, work.before.get(name)) for name in names if name in given]
        begun = " and ".join(typed) or f"with another {' and '.join(names)}"
        raise CheckpointError(
            f"{folder} is of a run that is not done and was begun {begun}: give the "
            "same to go on with it, write to another place, or remove the folder to begin again"
        )
    return work


def as_typed(name: str, value: str | None) -> str:
    """An option as it is typed, from the text of its value: a list gives it several times.

    >>> as_typed("data", "['a b.jsonl', 'c.jsonl']")
    "with --data 'a b.jsonl' --data c.jsonl"
    >>> as_typed("remove_length", "False")
    'without --remove-length'
    """
    flag = f"--{name.replace('_', '-')}"
    if value in (None, "None", "False", "[]"):
        return f"without {flag}"
    if value == "True":
        return f"with {flag}"
    values = ast.literal_eval(value) if value.startswith(("['", '["')) else [value]
    return "with " + " ".join(f"{flag} {shlex.quote(str(one))}" for one in values)


def _checksums(value: Any) -> dict[str, str]:
    """The content of what an option names, by path: a file, or the files of a policy's folder."""
    text = str(value)
    path = Path(text.rpartition(":")[0] if ".py:" in text else text)
    files = [path] if path.is_file() else sorted(p for p in _of_policy(path) if p.is_file())
    return {str(file): fingerprint(file) for file in files}


def _of_policy(folder: Path) -> Iterator[Path]:
    """What lies in a folder and one below it, such as an adapter; not what is saved on the way."""
    for path in folder.glob("*"):
        yield path
        if not path.name.startswith((".", CHECKPOINT)):
            yield from path.glob("*")


def fingerprint(path: Path) -> str:
    """What tells a file from another one: its checksum; of a large one, of pieces of it.

    Weights of 100 GB would take minutes at every start, and weights that were trained on differ
    everywhere.
    """
    size = path.stat().st_size
    if size <= PIECES * PIECE:
        return checksum(path)
    found = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for number in range(PIECES):
            file.seek(number * (size - PIECE) // (PIECES - 1))
            found.update(file.read(PIECE))
    return found.hexdigest()


def part_of_stage(folder: Path, key: str, options: Saved, console: Console) -> GoingOn:
    """A part of a recipe's stage; one that was made from something else begins again.

    Args:
        folder: Where its newest checkpoint stands.
        key: Of all that the stage is made from.
        options: How often to save.
        console: Where to say what is saved.

    Raises:
        CheckpointError: All its checkpoints are damaged, or another process is writing them.
    """
    made_from = {"key": key}
    work = GoingOn(of_ranks(Checkpoints(folder, options.keep)), options, made_from, console)
    if work.before != made_from:
        with work.checkpoints.owned():  # which also undoes what a kill within a save has left
            work.finished()
        work = GoingOn(of_ranks(Checkpoints(folder, options.keep)), options, made_from, console)
    return work

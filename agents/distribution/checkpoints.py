"""Checkpoints that several processes write together."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from safetensors import SafetensorError

from agents.distribution.ranks import Ranks
from agents.runs.checkpoints import Checkpoints, Write
from textenv.errors import CheckpointError, LostProcessError, NotSavedError
from textenv.files import reason

UNWRITTEN = (OSError, SafetensorError, LostProcessError)
"""What a rank says that cannot write, or has heard so of the first one; its work can go on."""


def of_ranks(checkpoints: Checkpoints) -> Checkpoints:
    """The same checkpoints, written by all processes of a group; themselves without one."""
    ranks = Ranks.found()
    if ranks.size == 1 or isinstance(checkpoints, OfRanks):
        return checkpoints
    return OfRanks(checkpoints, ranks)


class OfRanks(Checkpoints):
    """Checkpoints into which each rank writes what it has; the first one begins and commits.

    What is given to `save` is called on every rank with the same folder. What all ranks would write
    alike is for the first one alone to write.
    """

    def __init__(self, checkpoints: Checkpoints, ranks: Ranks):
        super().__init__(checkpoints.folder, checkpoints.keep)
        self.ranks = ranks

    def save(self, write: Write) -> float:
        """See `Checkpoints.save`; if one rank cannot write, no rank has saved.

        Raises:
            NotSavedError: A rank cannot write.
            LostProcessError: Another rank has raised something else, which ends it.
        """
        start = time.perf_counter()
        steps: list[Callable[[], object]] = [lambda: write(self.part)]
        if self.ranks.first:
            steps = [self.begin, *steps, self.commit]
        else:
            steps = [int, *steps, int]  # nothing to do
        for step in steps:
            wrong: Exception | None = None
            try:
                step()
            except Exception as error:  # raised again below: the others wait for a word
                wrong = error
            unwritten = isinstance(wrong, UNWRITTEN)
            of_all = self.ranks.objects((unwritten, reason(wrong)) if wrong else None)
            told = [one for one in of_all if one]
            if not told:
                continue
            if self.ranks.first:
                shutil.rmtree(self.part, ignore_errors=True)
            if wrong and not unwritten:
                raise wrong
            for can_go_on, why in told:
                if not can_go_on:
                    raise LostProcessError(f"in another process: {why}") from wrong
            raise NotSavedError(
                f"no checkpoint could be written in {self.folder}: {told[0][1]}"
            ) from wrong
        return time.perf_counter() - start

    @contextmanager
    def owned(self) -> Iterator[None]:
        """See `Checkpoints.owned`; the first rank owns them for all."""
        with ExitStack() as until_left:
            try:
                self.ranks.by_first(lambda: until_left.enter_context(super(OfRanks, self).owned()))
            except LostProcessError as error:  # the first rank itself raised the original
                raise CheckpointError(str(error)) from error
            yield

    def remove(self) -> None:
        """See `Checkpoints.remove`."""
        self.ranks.by_first(super().remove)

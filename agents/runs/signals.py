"""SIGTERM and SIGINT: a run is asked to end, and ends where nothing is half.

Ctrl-C sends SIGINT. SIGTERM comes from `kill`, from `docker stop`, from a cluster whose time is
over. Nothing here needs torch.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal ended the process; it goes where a KeyboardInterrupt goes.

    Attributes:
        signal: Which one.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


@contextmanager
def handled(handler: Callable[[int, Any], object], *numbers: int) -> Iterator[None]:
    """`handler` for these signals, the former ones afterwards; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)


def raise_stopped(number: int, frame: object) -> None:
    """A handler: the process ends wherever it is, and what it was doing can clean up.

    Raises:
        Stopped: At once.
    """
    raise Stopped(number)


class Asked:
    """Whether a signal has asked the process to end; a second one ends it at once.

    Attributes:
        by: The signal; None before there was one.
        waits: Whether the first signal waits. Not where a person is asked, who would wait too.
    """

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self.waits = True

    def __call__(self, number: int, frame: object) -> None:
        """Note a signal.

        Raises:
            Stopped: It is the second one, or the first one does not wait.
        """
        if self.by is not None or not self.waits:
            raise Stopped(number)
        self.by = signal.Signals(number)
        # Not through the console, which may be in the middle of a line.
        text = f"\n{self.by.name}: saves after this update and ends; a second one ends at once\n"
        with contextlib.suppress(OSError):  # nobody may read it any more
            os.write(2, text.encode())

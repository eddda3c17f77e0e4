"""Keys that a person presses while a policy writes, read one by one from the terminal."""

import os
import select
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Self, TextIO

from agents.feedback.from_people.key_credit import DELAY, Press
from textenv.errors import OptionError

REWARDS = {"+": 1.0, "=": 1.0, "k": 1.0, "-": -1.0, "_": -1.0, "j": -1.0}
"""What a key says; `=` is `+` without shift."""

QUIT = "q"
HELP = "+ for good, - for bad, as often as you like; q stops."


class TerminalPerson:
    """Somebody at a terminal, whose keys are read as they are pressed.

    A context manager: inside it keys are not echoed and need no Enter.

    Args:
        out: Where the policy's text is shown; the standard output if None.
    """

    def __init__(self, out: TextIO | None = None):
        self.out = out or sys.stdout

    def __enter__(self) -> Self:
        try:
            import termios
            import tty
        except ImportError as error:
            raise OptionError(
                "keys are read one by one, which this system's terminal does not do: pipe them in, "
                "a character for each token"
            ) from error
        self._input = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        return self

    def __exit__(self, *raised: object) -> None:
        import termios

        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def clock(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def watch(self, text: str, seconds: float | None) -> Sequence[Press]:
        """Show `text`, and read keys for `seconds`, or until there is one that says something.

        Raises:
            KeyboardInterrupt: `q` was pressed, or the terminal was closed.
        """
        print(text, end="", file=self.out, flush=True)
        presses: list[Press] = []
        until = None if seconds is None else self.clock() + seconds
        while True:
            left = None if until is None else max(until - self.clock(), 0.0)
            ready, _, _ = select.select([self._input], [], [], left)
            if not ready:
                return presses
            read = os.read(self._input, 1)
            if not read:  # the terminal was closed, and would be ready for ever
                raise KeyboardInterrupt
            key = read.decode("ascii", "replace")
            presses += pressed(key, self.clock())
            if seconds is None and presses:
                return presses


class KeysInAdvance:
    """Keys written down before: one character for each token (or answer), any other for none.

    Time passes only as far as the session waits, so that the same keys always mean the same.

    Args:
        keys: The characters; line ends are left out. The session stops at the end of them.
        out: Where the policy's text is shown; the standard output if None.
    """

    def __init__(self, keys: Iterable[str], out: TextIO | None = None):
        self.out = out or sys.stdout
        self._keys = (key for line in keys for key in line if key not in "\r\n")
        self._now, self._late = 0.0, list[Press]()

    def clock(self) -> float:
        """Seconds that the session has waited."""
        return self._now

    def watch(self, text: str, seconds: float | None) -> Sequence[Press]:
        """Show `text`; the next key is pressed in the middle of the delays.

        Raises:
            KeyboardInterrupt: The key is `q`, or there are no more.
        """
        print(text, end="", file=self.out, flush=True)
        if text and seconds != 0:
            key = next(self._keys, QUIT)
            self._late += pressed(key, self._now + sum(DELAY) / 2)
        self._now = self._now + seconds if seconds is not None else self._now + DELAY[1]
        due = [press for press in self._late if press.at <= self._now]
        self._late = [press for press in self._late if press.at > self._now]
        return due


def pressed(key: str, at: float) -> list[Press]:
    """What a key says: nothing, or one reward.

    Raises:
        KeyboardInterrupt: It is `q`.
    """
    if key.lower() == QUIT:
        raise KeyboardInterrupt
    return [Press(at, REWARDS[key])] if key in REWARDS else []

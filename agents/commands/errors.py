"""What a user can mend, as one message instead of a traceback."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agents.runs.signals import Stopped
from textenv.errors import OptionError, TextEnvError
from textenv.places import place_of


@contextmanager
def errors_as_messages(debug: bool) -> Iterator[None]:
    """Print what a user can mend as one message, and exit.

    That is a named error, a file that cannot be read or written, and whatever the user's own code
    raises. Anything else is a mistake of this project, and its traceback is shown.

    The exit code is 1, 2 for options that cannot be used, 130 after Ctrl-C and 143 after SIGTERM.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        message = _message(error)
        if debug or message is None:
            raise
        stopped = isinstance(error, KeyboardInterrupt)
        notes = getattr(error, "__notes__", [])
        if isinstance(error, Stopped) and not notes:
            notes = ["The same command goes on with what was saved before, or begins again."]
        _print("\n".join([message, *notes]), stopped)
        code = 2 if isinstance(error, OptionError) else 1
        asked = error.signal if isinstance(error, Stopped) else signal.SIGINT
        raise SystemExit(128 + asked if stopped else code) from error


def _message(error: BaseException) -> str | None:
    """What to print, or None for what the user cannot mend."""
    if isinstance(error, KeyboardInterrupt):
        return f"Stopped by {error.signal.name}." if isinstance(error, Stopped) else "Stopped."
    raised = f"{type(error).__name__}: {error}"
    if isinstance(error, TextEnvError):
        return raised
    if isinstance(error, OSError) and error.filename is not None:
        return f"{type(error).__name__}: {error.strerror}: {error.filename}"
    place = place_of(error)
    # Code that was made at run time, such as that of a dataclass, has no file.
    return f"{raised}; at {place} (--debug shows more)" if place[:1] not in ("", "<") else None


def _print(message: str, stopped: bool) -> None:
    from rich.console import Console  # only now: the help of a command does not need it
    from rich.text import Text

    text = Text(message, style="yellow" if stopped else "red")
    Console(file=sys.stderr).print(text, soft_wrap=True)  # paths and commands stay whole

"""What a user can mend, as one message instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from textenv.errors import OptionError, TextEnvError


@contextmanager
def errors_as_messages(debug: bool) -> Iterator[None]:
    """Print what a user can mend as one message, and exit.

    The exit code is 1, 2 for options that cannot be used, and 130 after Ctrl-C.
    """
    try:
        yield
    except (TextEnvError, KeyboardInterrupt) as error:
        if debug:
            raise
        stopped = isinstance(error, KeyboardInterrupt)
        message = "Stopped." if stopped else f"{type(error).__name__}: {error}"
        _print("\n".join([message, *getattr(error, "__notes__", [])]), stopped)
        code = 2 if isinstance(error, OptionError) else 1
        raise SystemExit(130 if stopped else code) from error


def _print(message: str, stopped: bool) -> None:
    from rich.console import Console  # only now: the help of a command does not need it
    from rich.text import Text

    text = Text(message, style="yellow" if stopped else "red")
    Console(file=sys.stderr).print(text, soft_wrap=True)  # paths and commands stay whole

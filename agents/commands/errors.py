"""What a user can mend, as one message instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from textenv.errors import TextEnvError


@contextmanager
def errors_as_messages(debug: bool) -> Iterator[None]:
    """Print what a user can mend as one message and exit with code 1, or 130 after Ctrl-C."""
    try:
        yield
    except (TextEnvError, KeyboardInterrupt) as error:
        if debug:
            raise
        stopped = isinstance(error, KeyboardInterrupt)
        message = "Stopped." if stopped else f"{type(error).__name__}: {error}"
        lines = [message, *getattr(error, "__notes__", [])]
        text = Text("\n".join(lines), style="yellow" if stopped else "red")
        Console(stderr=True).print(text, soft_wrap=True)  # paths and commands stay whole
        raise typer.Exit(130 if stopped else 1) from error

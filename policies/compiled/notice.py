"""One line for the user before the first loop is really compiled, which takes a while.

Numba tells of each function that it compiles, and of none that it loads from its cache.
"""

import sys
from typing import Any

from numba.core import event

NOTICE = (
    "Compiling the decoding loops for this processor: about 20 seconds, once for an installation."
)


class FirstCompilation(event.Listener):  # type: ignore[misc]
    """Prints the notice once in a process, when a function of this package is compiled."""

    def __init__(self) -> None:
        # Not unregistered once it has told: Numba walks its list of listeners while it tells them,
        # and would skip the next one.
        self.told = False

    def on_start(self, event: Any) -> None:
        """A function begins to be compiled; it may be one of another library."""
        if self.told:
            return
        function = event.data["dispatcher"].py_func
        # A function made by exec has no module.
        if (function.__module__ or "").startswith(__package__):
            self.told = True
            print(NOTICE, file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """It is compiled; nothing to say."""


def tell_before_compiling() -> None:
    """From here on say so before this package is compiled."""
    event.register("numba:compile", FirstCompilation())

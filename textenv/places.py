"""Where in the user's own code something went wrong."""

import inspect
import sysconfig
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from textenv.reward_adapters import Adapter

OURS = ("textenv", "policies", "agents")
INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib"))


def place_of(error: BaseException, function: Any = None) -> str:
    """The last line of the user's code that an exception passed, such as "my.py, line 3: x / y".

    Where it has passed none, as where a function cannot be called, the place of `function`.

    Returns:
        Empty if all of it is code of this project, of Python or of installed packages.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        name = frame.f_code.co_filename
        if _is_the_users(name, frame.f_globals.get("__name__", "")):
            (shown,) = traceback.StackSummary.extract([(frame, line)])
            code = f": {shown.line}" if shown.line else ""  # none where no file holds it
            return f"{_short(name)}, line {line}{code}"
    return defined_at(function)


def told(error: BaseException) -> str:
    """An error in a line: its class, what it says, and where in the user's code it happened."""
    place = place_of(error)
    return f"{type(error).__name__}: {error}" + (f"; in {place}" if place else "")


def defined_at(function: Any) -> str:
    """File and line at which the user wrote a function; empty if it is someone else's."""
    while isinstance(function, partial | Adapter):
        function = function.func if isinstance(function, partial) else function.function
    function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):
        function = inspect.getattr_static(type(function), "__call__", None)
    code = getattr(function, "__code__", None)
    if code is None or not _is_the_users(code.co_filename, function.__module__ or ""):
        return ""
    return f"{_short(code.co_filename)}, line {code.co_firstlineno}"


def _is_the_users(file: str, module: str) -> bool:
    if module.partition(".")[0] in OURS or file.startswith("<frozen"):
        return False
    return not file.startswith(INSTALLED)


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file

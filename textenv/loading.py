"""Finds Python objects by name, so that a command line or a saved spec can name user code."""

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from textenv.errors import ObjectNotFoundError
from textenv.files import did_you_mean
from textenv.places import place_of
from textenv.records import short

FILE = "textenv_file_"
"""What the names of modules made of files begin with; their paths follow."""


def load_object(spec: str) -> Any:
    """The object with the name `"package.module:name"` or `"path/to/file.py:name"`.

    A file is executed once in a process. Its module name depends on its path alone, so a second
    call gives the same object, and its functions and classes can be pickled: another process on the
    same machine executes the file again. The file's folder is not put on the import path.

    >>> load_object("math:sqrt")(9.0)
    3.0

    Raises:
        ObjectNotFoundError: The string has another form; the module, the file or the name does not
            exist; or the module raised while it was imported (its exception is the cause).
    """
    try:
        return _object(spec)
    except ObjectNotFoundError as error:
        error.spec = spec
        raise


def _object(spec: str) -> Any:
    location, _, name = spec.rpartition(":")
    if not location or not name:
        raise ObjectNotFoundError(
            f"{spec!r} does not name an object: write 'package.module:name' or "
            "'path/to/file.py:name'"
        )
    is_file = location.endswith(".py")
    module = _module_from_file(Path(location)) if is_file else _module_from_name(location)
    try:
        return getattr(module, name)
    except AttributeError as error:
        close = difflib.get_close_matches(name, dir(module))
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ObjectNotFoundError(f"{location} has no {name!r}{hint}") from error


def load_function(spec: str, what: str, arguments: str) -> Callable[..., Any]:
    """The function with the name `spec`; see `load_object`.

    Args:
        spec: Its name.
        what: What it is to be, for a message, such as `"the judge"`.
        arguments: What it is called with, for a message.

    Raises:
        ObjectNotFoundError: There is no such object, or it is not a function.
    """
    found = load_object(spec)
    if not callable(found):
        raise ObjectNotFoundError(f"{what} {spec} is {short(found)}, not a function of {arguments}")
    function: Callable[..., Any] = found
    return function


def _module_from_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ObjectNotFoundError(
            f"{name!r} is not the name of a module: write 'package.module:name', or "
            "'path/to/file.py:name' for a file"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _raised_on_import(name, error) from error  # it imports something that is missing
        raise ObjectNotFoundError(
            f"there is no module {error.name!r} on the import path; name a file that is not "
            "installed by its path, 'path/to/file.py:name'"
        ) from error
    except Exception as error:
        raise _raised_on_import(name, error) from error


def _module_from_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ObjectNotFoundError(f"there is no file {path}{did_you_mean(path)}")
    stem = re.sub(r"[^0-9A-Za-z_]", "_", path.stem)
    try:
        return importlib.import_module(f"{FILE}{stem}_{os.fsencode(path).hex()}")
    except Exception as error:
        raise _raised_on_import(str(path), error) from error


class _Files:
    """Finds the modules of files, whose names hold the paths.

    So what was pickled by the name of its module is found in another process too.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The file that the module `name` was made of; None for other modules."""
        if not name.startswith(FILE):
            return None
        file = os.fsdecode(bytes.fromhex(name.rpartition("_")[2]))
        return importlib.util.spec_from_file_location(name, file)


sys.meta_path.append(_Files)


def _raised_on_import(what: str, error: Exception) -> ObjectNotFoundError:
    place = place_of(error)
    return ObjectNotFoundError(
        f"importing {what} raised {type(error).__name__}: {error}"
        + (f"; in {place}" if place else "")
    )

"""Where a job is to write, looked at before the work and not after it."""

import os
from pathlib import Path

from textenv.errors import OptionError


def check_folder(path: Path, flag: str) -> None:
    """Make sure that `path` is a folder that can be written, or can be made.

    Raises:
        OptionError: It cannot; `flag` is the option that named it.
    """
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir():
        raise OptionError(f"{flag} {path}: {there} is a file, not a folder; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OptionError(f"{flag} {path}: {there} may not be written; choose another place")


def check_file(path: Path, flag: str) -> None:
    """Make sure that `path` is a file that can be written, or can be made.

    Raises:
        OptionError: It cannot; `flag` is the option that named it.
    """
    if path.is_dir():
        raise OptionError(f"{flag} {path} is a folder, not a file: add the file's name")
    if path.exists() and not os.access(path, os.W_OK):
        raise OptionError(f"{flag} {path} may not be written; choose another file")
    check_folder(path.parent, flag)


def write_file(path: Path, text: str) -> None:
    """Write JSON or JSON lines; the folder is made if it does not exist.

    Half a character (a lone surrogate), which UTF-8 has not, is written as JSON escapes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")

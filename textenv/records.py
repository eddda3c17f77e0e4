"""Reads the lines of a file as records, and reports all lines that cannot be read at once.

Files are read whole; nothing is streamed.
"""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from textenv.errors import MalformedRecordError
from textenv.files import read_bytes, without_mark

MAX_PROBLEMS_SHOWN = 10

T = TypeVar("T")


def read_jsonl(
    path: str | os.PathLike[str], parse: Callable[[dict[str, Any]], T], what: str = "records"
) -> list[T]:
    """The records of a JSON-lines file, UTF-8; each line is a JSON object, blank lines are skipped.

    Args:
        path: Ends in `.jsonl`, or in `.jsonl.gz` if it is compressed.
        parse: Makes a record from a JSON object; raises ValueError if it cannot.
        what: What the records should be, for the message.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: The file or some lines of it cannot be read. The first ten such lines
            are listed, each with the file and its number.
    """
    return [record for _, record in numbered_lines(path, on_json(parse), what)]


def on_json(parse: Callable[[dict[str, Any]], T]) -> Callable[[str], T]:
    """A function of a line's text, from one of the JSON object in it."""
    return lambda line: parse(_json_object(line))


def numbered_lines(
    path: str | os.PathLike[str], parse: Callable[[str], T], what: str = "records"
) -> list[tuple[int, T]]:
    """Like `read_jsonl`, for lines of any kind and with their numbers.

    Args:
        path: The file.
        parse: Makes a record from a line's text; raises ValueError if it cannot.
        what: What the records should be, for the message.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: The file or some lines of it cannot be read.
    """
    records: list[tuple[int, T]] = []
    problems: list[str] = []
    # Split as bytes: str.splitlines would also break at U+2028 and others, which JSON may contain.
    for number, raw in enumerate(_content(Path(path), what).splitlines(), start=1):
        try:
            line = raw.decode("utf-8")
            if line.strip():
                records.append((number, parse(line)))
        except (ValueError, RecursionError) as error:  # also what decode and TextEnvErrors raise
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise MalformedRecordError(f"these lines are not {what}:\n{listed(problems)}")
    return records


def read_files(
    paths: Iterable[str | os.PathLike[str]], read: Callable[[str | os.PathLike[str]], list[T]]
) -> list[T]:
    """The records of several files, one after the other; an error lists the bad lines of all.

    Args:
        paths: Paths of the files.
        read: Reads one file, such as a call of `read_jsonl`.

    Raises:
        MalformedRecordError: Lines of one file or of several cannot be read.
    """
    records: list[T] = []
    problems: list[str] = []
    for path in paths:
        try:
            records += read(path)
        except MalformedRecordError as error:
            problems.append(str(error))
    if problems:
        raise MalformedRecordError("\n".join(problems))
    return records


def listed(problems: Sequence[str]) -> str:
    """The first ten problems, one a line, and how many there are beyond."""
    more = len(problems) - MAX_PROBLEMS_SHOWN
    shown = [*problems[:MAX_PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return "\n".join(shown)


def short(value: object) -> str:
    """A value as Python writes it, cut to 80 characters, for error messages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _content(path: Path, what: str) -> bytes:
    content = read_bytes(path, what)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise MalformedRecordError(
                f"the file of {what} {path} cannot be read: {error}"
            ) from error
    return without_mark(content)


def _json_object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON, {error.msg} at column {error.colno}: {short(line)}") from error
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {short(line)}")
    return row

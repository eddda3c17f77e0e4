"""Reads records of any source, and reports all that cannot be read at once."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from textenv.errors import MalformedRecordError
from textenv.records.files import lines, opened, rows
from textenv.records.problems import listed, short

T = TypeVar("T")
Place: TypeAlias = str
"""Where a record stands, for messages: "talks.jsonl:3", or "records[2]" of an object."""

Records: TypeAlias = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
"""A file, or an object that gives records one by one, such as a `Dataset` of `datasets`."""


def read_records(
    source: Records, parse: Callable[[dict[str, Any]], T], what: str = "records"
) -> list[T]:
    """All records of a source.

    Args:
        source: A file of the formats in `textenv.records.files`, plain or compressed, or any
            iterable of mappings: a list, a `Dataset` or a streamed `IterableDataset` of `datasets`.
            A stream is read to its end: take a part of an endless one first.
        parse: Makes a record from a dict; raises ValueError if it cannot.
        what: What the records should be, for the message.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: The file or some of its records cannot be read. The first ten of these
            are listed, each with the file and its line.
    """
    return [record for _, record in placed_records(source, parse, what)]


def placed_records(
    source: Records, parse: Callable[[dict[str, Any]], T], what: str = "records"
) -> list[tuple[Place, T]]:
    """Like `read_records`, and where each record stands."""
    return _all_of(parsed(source, parse, what), what)


def parsed(
    source: Records, parse: Callable[[dict[str, Any]], T], what: str = "records"
) -> Iterator[tuple[Place, T | ValueError]]:
    """The records of a source one by one, and in place of one that cannot be read the reason.

    Nothing is held: of files but `.json` lists, and of streams, one record is in memory at a time.
    """
    for place, row in _placed(source, what):
        if not isinstance(row, ValueError):
            try:
                yield place, parse(_record(row))
                continue
            except (ValueError, RecursionError) as error:
                row = error
        yield place, row if isinstance(row, ValueError) else ValueError(str(row))


def read_lines(
    path: str | os.PathLike[str], parse: Callable[[str], T], what: str = "lines"
) -> list[tuple[Place, T]]:
    """What `parse` makes of every line of a text file, UTF-8; blank lines are skipped.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: The file or some lines of it cannot be read.
    """

    def each() -> Iterator[tuple[Place, T | ValueError]]:
        with opened(path, what) as file:
            numbered = list(lines(file))
        for number, raw in numbered:
            try:
                line = raw.decode("utf-8")
                if line.strip():
                    yield f"{path}:{number}", parse(line)
            except ValueError as error:  # also what decode and TextEnvErrors raise
                yield f"{path}:{number}", error

    return _all_of(each(), what)


def read_files(
    paths: Iterable[str | os.PathLike[str]], read: Callable[[str | os.PathLike[str]], list[T]]
) -> list[T]:
    """The records of several files, one after the other; an error lists the bad lines of all.

    Args:
        paths: Paths of the files.
        read: Reads one file, such as a call of `read_records`.

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


def _all_of(records: Iterable[tuple[Place, T | ValueError]], what: str) -> list[tuple[Place, T]]:
    good: list[tuple[Place, T]] = []
    problems: list[str] = []
    for place, record in records:
        if isinstance(record, ValueError):
            problems.append(f"{place}: {record}")
        else:
            good.append((place, record))
    if problems:
        raise MalformedRecordError(f"these lines are not {what}:\n{listed(problems)}")
    return good


def _placed(source: Records, what: str) -> Iterator[tuple[Place, Any]]:
    if isinstance(source, str | os.PathLike):
        yield from ((f"{Path(source)}:{number}", row) for number, row in rows(source, what))
        return
    if isinstance(source, bytes | Mapping) or not isinstance(source, Iterable):
        raise MalformedRecordError(
            f"{short(source)} of type {type(source).__name__} gives no {what}: name a file, or "
            "pass a list or a dataset of records"
        )
    yield from ((f"records[{number}]", row) for number, row in enumerate(source))


def _record(row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ValueError(f"not a JSON object: {short(row)}")
    return dict(row)

"""Files of records, read piece by piece: JSON lines and lists, CSV, Parquet, compressed or not.

Every record comes with its line: of a Parquet file, which has none, the number of its row. What
cannot be read comes as the reason, so that a file can be examined to its end.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from textenv.errors import MalformedRecordError, MissingFileError
from textenv.files import reason, without_mark
from textenv.imports import optional
from textenv.records.problems import short

Numbered: TypeAlias = tuple[int, Any]
"""A line from 1, and what is read there, or a ValueError that says why nothing is."""

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
ROWS_AT_A_TIME = 256
LONGEST_CELL = 2**31 - 1
"""Characters; the `csv` module itself stops at 131,072, and documents are longer."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The ending of a file's name that says how its records are written, without a compression.

    >>> format_of("talks.JSONL.gz")
    '.jsonl'
    """
    name = Path(path)
    if name.suffix.lower() in COMPRESSIONS:
        name = name.with_suffix("")
    return name.suffix.lower()


def rows(path: str | os.PathLike[str], what: str) -> Iterator[Numbered]:
    """The records of a file with their lines, as the ending of its name says they are written.

    A `.json` file holds a list of records, or one on each line. The first line of a `.csv` or
    `.tsv` file names the columns; every cell is a text, and an empty one is null.

    Args:
        path: It ends in one of `FORMATS`, and perhaps in one of `COMPRESSIONS` after it.
        what: What the records should be, for messages.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: It cannot be read, or its name has another ending.
        MissingExtraError: What reads such a file is not installed.
    """
    readers: dict[str, Callable[[BinaryIO], Iterator[Numbered]]] = {
        ".jsonl": _of_lines,
        ".json": _of_list,
        ".csv": partial(_of_table, ","),
        ".tsv": partial(_of_table, "\t"),
        ".parquet": _of_parquet,
    }
    read = readers.get(format_of(path))
    if read is None:
        raise MalformedRecordError(
            f"the file of {what} {path} has an ending that is not known: records are in "
            f"{', '.join(FORMATS)}, each perhaps with {', '.join(COMPRESSIONS)} behind it"
        )
    with opened(path, what) as file:
        yield from read(file)


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, without a byte order mark and their ends."""
    number = 0
    # Split as bytes: str.splitlines would also break at U+2028 and others, which JSON may contain.
    for first, raw in enumerate(file):
        for line in (without_mark(raw) if first == 0 else raw).splitlines():
            number += 1
            yield number, line


@contextmanager
def opened(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """A file to read from, decompressed as its ending says.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: It cannot be read.
        MissingExtraError: What decompresses it is not installed.
    """
    try:
        with _decompressed(Path(path)) as file:
            yield file
    except (OSError, EOFError, zlib.error, lzma.LZMAError, _DamagedError) as error:
        missing = isinstance(error, FileNotFoundError)
        kind = MissingFileError if missing else MalformedRecordError
        raise kind(f"the file of {what} {path} cannot be read: {reason(error)}") from error


class _DamagedError(Exception):
    """An error of an optional library as one of ours, so that its class need not be imported."""


def _decompressed(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".zst":
        with optional("zstandard", extra="data", purpose="a file that ends in .zst"):
            import zstandard
        return cast(BinaryIO, io.BufferedReader(_Zstandard(zstandard, path)))
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(BinaryIO, openers.get(path.suffix.lower(), open)(path, "rb"))


class _Zstandard(io.RawIOBase):
    """A file of zstandard whose damage is an error of ours."""

    def __init__(self, library: Any, path: Path):
        self._error = library.ZstdError
        self._file = library.open(path, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._file.readinto(buffer))
        except self._error as error:
            raise _DamagedError(error) from error

    def close(self) -> None:
        self._file.close()
        super().close()


# -------------------------------------------------------------------- formats


def _of_lines(file: BinaryIO) -> Iterator[Numbered]:
    for number, raw in lines(file):
        try:
            line = raw.decode("utf-8")
            if line.strip():
                yield number, _json(line)
        except (ValueError, RecursionError) as error:
            yield number, _problem(error)


def _json(line: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON, {error.msg} at column {error.colno}: {short(line)}") from error
    _check_text(row, line)
    return row


def _check_text(row: Any, written: str) -> None:
    """Refuse half characters, which JSON can spell and no file can hold."""
    if "\\ud" not in written.lower():
        return
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{short(row)} is not valid text: {error}") from error


def _of_list(file: BinaryIO) -> Iterator[Numbered]:
    """The elements of a JSON list; each has the line that it begins in."""
    content = without_mark(file.read())
    if not content.lstrip().startswith(b"["):  # many a file of lines is called .json
        yield from _of_lines(io.BytesIO(content))
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        yield content[: error.start].count(b"\n") + 1, _problem(error)
        return
    decoder, place, seen, line = json.JSONDecoder(), text.index("[") + 1, 0, 1
    begun = False
    while True:
        place = _behind_space(text, place)
        ends, comma = text[place : place + 1] == "]", text[place : place + 1] == ","
        if begun and comma:
            place = _behind_space(text, place + 1)
        line += text.count("\n", seen, place)
        seen = place
        if ends:
            rest = text[place + 1 :].strip()
            if rest:
                yield line, ValueError(f"there is more behind the list: {short(rest)}")
            return
        if begun and not comma:
            yield line, ValueError(f"the list does not go on: {short(text[place : place + 80])}")
            return
        try:
            row, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:  # no JSON, or too long a number
            said = getattr(error, "msg", str(error))
            yield line, ValueError(f"not JSON, {said}: {short(text[place : place + 80])}")
            return
        begun, written, place = True, text[place:end], end
        try:
            _check_text(row, written)
        except ValueError as error:
            yield line, error
        else:
            yield line, row


def _behind_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\r", "\t") and place < len(text):
        place += 1
    return place


def _of_table(delimiter: str, file: BinaryIO) -> Iterator[Numbered]:
    """The rows of a table of texts with the lines that they begin in; a cell may hold several."""
    # Bytes that are no UTF-8 are kept in half characters until the cell that has them is known.
    texts = (
        (without_mark(raw) if first == 0 else raw).decode("utf-8", "surrogateescape")
        for first, raw in enumerate(file)
    )
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = _next_row(reader)
            if cells is None:
                return
            if not cells:  # a blank line
                continue
            if names is None:
                names = _names(cells)
            else:
                yield line, _named(cells, names)
        except (csv.Error, ValueError) as error:
            what = f"not a row of a table, {error}" if isinstance(error, csv.Error) else str(error)
            yield line, ValueError(what)
            if names is None:
                return


def _next_row(reader: Any) -> list[str] | None:
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        row: list[str] | None = next(reader, None)
        return row
    finally:
        csv.field_size_limit(before)


def _names(cells: list[str]) -> list[str]:
    if len(set(cells)) < len(cells) or not all(cells):
        raise ValueError(f"the first line must name the columns, each once: {short(cells)}")
    return cells


def _named(cells: list[str], names: list[str]) -> dict[str, str | None]:
    if len(cells) != len(names):
        raise ValueError(
            f"a row of {len(cells)} cells, and the first line names {len(names)} columns "
            f"({', '.join(names)}): {short(cells)}"
        )
    for cell in cells:
        if any("\ud800" <= character <= "\udfff" for character in cell):
            raise ValueError(f"{short(cell)} is not UTF-8")
    return {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _of_parquet(file: BinaryIO) -> Iterator[Numbered]:
    with optional("pyarrow", extra="data", purpose="a file that ends in .parquet"):
        import pyarrow
        from pyarrow import parquet
    if not file.seekable():
        file = io.BytesIO(file.read())
    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(ROWS_AT_A_TIME):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as error:
        raise _DamagedError(error) from error


def _problem(error: Exception) -> ValueError:
    return error if isinstance(error, ValueError) else ValueError(str(error))

"""Files that people name: text as UTF-8, and messages that call a missing file a missing file."""

import codecs
import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from textenv.errors import MalformedRecordError, MissingFileError


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """The content of the file `path`; messages say `what` it should hold.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        kind = MissingFileError if missing else MalformedRecordError
        raise kind(f"the file of {what} {path} cannot be read: {reason(error)}") from error


def read_text(path: str | os.PathLike[str], what: str = "text") -> str:
    r"""The text of a UTF-8 file, with "\n" at the end of every line.

    A byte order mark at the beginning, which editors on Windows write, is not part of the text.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: It cannot be read, or is not UTF-8.
    """
    content = read_bytes(path, what)
    try:
        text = without_mark(content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRecordError(
            f"the file of {what} {path} is no text of UTF-8: {error}; save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_mark(content: bytes) -> bytes:
    """The content of a file without the byte order mark of UTF-8."""
    return content.removeprefix(codecs.BOM_UTF8)


def check_there(paths: Iterable[str | os.PathLike[str]], what: str) -> None:
    """Find missing files before any long work.

    Raises:
        MissingFileError: Some are missing; the message names them all.
    """
    missing = [str(path) for path in paths if not Path(path).is_file()]
    if missing:
        hints = "".join(map(did_you_mean, missing))
        raise MissingFileError(f"there is no file {', '.join(missing)} to read {what} from{hints}")


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """What a message about a missing file or folder ends with: what is there and is called alike.

    It is empty if there is nothing. Where a folder has the name of a missing file, it says so.
    """
    missing = Path(path)
    if missing.is_dir():
        return "; that is a folder"
    try:
        names = [entry.name for entry in missing.absolute().parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, names, 1)
    return f"; did you mean {missing.with_name(near[0])}?" if near else ""


def reason(error: Exception) -> str:
    """Why a file could not be read, from the exception: a missing file is called one."""
    if not isinstance(error, FileNotFoundError) or error.filename is None:
        return f"{type(error).__name__}: {error}"
    path = Path(error.filename).absolute()
    gone = next((p for p in (*reversed(path.parents), path) if not p.exists()), path)
    return f"there is no {'file' if gone == path else 'folder'} {gone}{did_you_mean(gone)}"

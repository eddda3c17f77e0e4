"""Files of JSON lines that grow while people or models work."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agents.runs.checkpoints import write_whole


def append_records(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Add records to a `.jsonl` file and write them to disk at once.

    The file and its folder are made if they do not exist. Half a character (a lone surrogate),
    which UTF-8 has not, is written as JSON escapes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # written by hand, perhaps: do not join two records
                lines.insert(0, "\n")
        file.write("".join(lines).encode(errors="backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def append_whole(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """As `append_records`, but all of the records or none of them are there after a kill.

    The file is written anew, so use it for many records at a time.
    """
    path = Path(path)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and not before.endswith("\n"):  # written by hand, perhaps
        before += "\n"
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_whole(path, before + lines)


def cut_half_record(path: str | os.PathLike[str]) -> None:
    """Remove a last line that a kill has left half: it has no end, and is no whole record.

    A file that holds anything but records stays as it is.
    """
    path = Path(path)
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if content[end:].startswith(b"{") and not _is_json(content[end:]):
        if all(map(_is_json, content[:end].splitlines())):
            os.truncate(path, end)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line or b"0")
    except ValueError:
        return False
    return True

"""Files of JSON lines that grow while people or models work."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


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

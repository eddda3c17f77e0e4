"""Stages that are made once: a stage that was finished with the same settings is not done again."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.runs.checkpoints import Checkpoints

MADE_FROM = "made_from.json"


def key_of(*shaped_by: Any) -> str:
    """A name that differs wherever what it is made from does; anything that JSON can hold."""
    return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:16]


def cached(folder: Path, key: str, make: Callable[[Path], object]) -> bool:
    """Let `make` fill `folder`, unless it was filled with the same key; whole or not at all.

    Args:
        folder: What is in it from other settings is replaced.
        key: From `key_of` of all that shapes the stage, earlier stages included.
        make: Called with an empty folder to write into. If it raises, nothing is left behind.

    Raises:
        OSError: The folder cannot be written.
        CheckpointError: Another process is making the stage.

    Returns:
        Whether it was made before.
    """
    if made_from(folder) == key:
        return True
    begin = time.perf_counter()
    stage = Checkpoints(folder)
    with stage.owned():
        try:
            empty = stage.begin()
            make(empty)  # what goes wrong in it is not the disk's fault
            note = {"key": key, "seconds": time.perf_counter() - begin}
            (empty / MADE_FROM).write_text(json.dumps(note), encoding="utf-8")
            stage.commit()
        finally:
            shutil.rmtree(stage.part, ignore_errors=True)
    return False


def made_from(folder: Path) -> str | None:
    """The key that a stage's folder was filled with, None if it was not."""
    note = folder / MADE_FROM
    return json.loads(note.read_text(encoding="utf-8"))["key"] if note.exists() else None


def seconds_of(folder: Path) -> float:
    """How long the stage took, earlier stages that had to be made for it included."""
    return float(json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))["seconds"])

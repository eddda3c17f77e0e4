"""A folder for each training run, with what is needed to understand and repeat it."""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

import gymnasium
import numpy as np
import torch

import textenv
from agents.runs.checkpoints import Checkpoints, write_whole


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Attributes:
        path: The folder; `RunFolder(path)` opens one that exists.
    """

    path: Path

    @classmethod
    def create(cls, root: str | Path = "runs", name: str | None = None) -> Self:
        """Make a new folder `root/date-time[-name]` and write `versions.json` into it.

        Two runs never share a folder, even if they start in the same second.

        Raises:
            ValueError: `name` cannot be part of a folder's name.
        """
        if name is not None and (Path(name).name != name or "\\" in name):
            raise ValueError(f"name is {name!r}; it becomes part of a folder's name: no slashes")
        stem = time.strftime("%Y%m%d-%H%M%S") + (f"-{name}" if name else "")
        Path(root).mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = Path(root) / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()  # fails if it exists: asking first would race with another run
                break
            except FileExistsError:
                continue
        run = cls(path)
        _write_json(path / "versions.json", versions())
        return run

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the arguments of the run, its seed among them, to `config.json`.

        What JSON cannot hold, such as an algorithm or a reward, is written as text.
        """
        _write_json(self.config, config)

    @property
    def config(self) -> Path:
        """The arguments of the run, JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """The numbers of every update, for `CSVLogger`."""
        return self.path / "metrics.csv"

    @property
    def samples(self) -> Path:
        """Samples, one JSON object per line, for `append_samples`."""
        return self.path / "samples.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The folder for `Learner.save` and `Learner.load`."""
        return self.path / "checkpoint"

    def checkpoints(self, keep: int = 1) -> Checkpoints:
        """The run's checkpoints, the newest of which is `checkpoint`."""
        return Checkpoints(self.checkpoint, keep)


def versions() -> dict[str, str | int]:
    """What a run's numbers depend on besides its arguments: software, machine and threads."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "textenv": textenv.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=_plain)
    write_whole(path, text + "\n")


def _plain(value: Any) -> Any:
    """Something that JSON can hold in place of `value`."""
    return value.item() if isinstance(value, np.generic) else str(value)

"""Kills processes before and after each system call of a save, and looks at what they leave.

    python kill_saves.py FOLDER

Each save is made in a process of its own, a fork of this one. Prints JSON: the calls of a save, the
number of kills, and how often which checkpoint was the newest whole one afterwards.
"""

import builtins
import io
import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from agents.runs.checkpoints import Checkpoints

CALLS = ("write", "fsync", "rename", "unlink", "rmdir", "mkdir", "open")
TIMES = 2


def writer(number: int):
    """Writes two files by plain system calls."""

    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        for name in ("a.txt", "deep/b.txt"):
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
            os.write(file, b"%d " % number * 500)
            os.write(file, b"%d " % number * 500)
            os.close(file)

    return write


def number_in(folder: Path) -> int:
    """The number that all of a checkpoint holds."""
    texts = [(folder / name).read_bytes().split() for name in ("a.txt", "deep/b.txt")]
    (number,) = {int(word) for text in texts for word in text}
    assert list(map(len, texts)) == [1000, 1000]
    return number


def save_and_die(folder: Path, fatal: int, after: bool) -> None:
    """Save, and be killed at the `fatal`-th call; leaves its calls in a file if it lives."""
    calls: list[str] = []
    counting = True

    def counted(real, name):
        def call(*arguments, **options):
            calls.append(name)
            this = len(calls)
            if this == fatal and not after and counting:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **options)
            finally:
                if this == fatal and after and counting:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    checkpoints = Checkpoints(folder / "checkpoint", keep=2)
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), name))
    io.open = builtins.open = counted(io.open, "open")
    checkpoints.save(writer(4))
    counting, made = False, list(calls)  # the file that is written now is none of the save's
    (folder.parent / "calls.json").write_text(json.dumps(made))


def main(where: Path) -> None:
    """Kill until a save lives, `TIMES` times over."""
    ready = where / "ready"
    for number in (1, 2, 3):
        Checkpoints(ready / "checkpoint", keep=2).save(writer(number))
    found: Counter[int] = Counter()
    kills = 0
    for after in [False, True] * TIMES:
        fatal = 0
        while True:
            fatal += 1
            folder = where / "run"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(ready, folder)
            child = os.fork()
            if child == 0:
                save_and_die(folder, fatal, after)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                assert status == 0
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            kills += 1
            checkpoints = Checkpoints(folder / "checkpoint", keep=2)
            newest = checkpoints.newest()  # a damaged one would be a warning, which is an error
            assert newest is not None
            found[number_in(newest)] += 1
            with checkpoints.owned():
                assert checkpoints.folder.exists()
                checkpoints.save(writer(5))
            assert number_in(checkpoints.folder) == 5
            kept = sorted(path.name for path in folder.iterdir())
            assert len(kept) == 2 and kept[0] == "checkpoint", kept
    calls = json.loads((where / "calls.json").read_text())
    print(json.dumps({"calls": calls, "kills": kills, "found": found}))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("error")
    main(Path(sys.argv[1]))

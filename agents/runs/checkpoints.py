"""Checkpoints that are whole or not there.

    checkpoint/                  the newest
    checkpoint.before-000007/    the one before it, where `keep` is 2
    .checkpoint.part/            one that was being written; the next save removes it

A checkpoint is written beside its place, flushed to disk, and renamed into place; older ones are
removed after that. Its manifest has the size and the checksum of every file, so that a damaged one
is found when it is read and the one before it can be used. Nothing here needs torch.
"""

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

import textenv
from textenv.errors import (
    CheckpointError,
    DamagedCheckpointWarning,
    NotSavedError,
    NotSavedWarning,
    TextEnvError,
)
from textenv.files import reason

MANIFEST = "manifest.json"
FORMAT = 1

_DAMAGED: set[Path] = set()
"""Checkpoints that were found damaged by this process: a whole one is kept in their place."""

Write = Callable[[Path], object]
"""Writes everything into the empty folder that it is given."""


class Checkpoints:
    """The checkpoints of one run: the newest in `folder`, those before it beside it.

    Args:
        folder: Where the newest stands, or will. Other files that lie in it stay in it, and go to
            the folder above with `remove`.
        keep: How many are kept, the newest included.

    Attributes:
        part: Where one is written; several processes may write into it between `begin` and
            `commit`.

    Raises:
        ValueError: `keep` is below 1.
    """

    def __init__(self, folder: str | Path, keep: int = 1):
        if keep < 1:
            raise ValueError(f"keep is {keep}; the newest checkpoint is always kept: 1 or more")
        folder = Path(folder)
        if folder.is_symlink() or folder.name in ("", ".."):
            folder = folder.resolve()
        self.folder, self.keep = folder, keep
        self.part = folder.with_name(f".{folder.name}.part")
        self._made_before = self._is_owned = False

    # ---------------------------------------------------------------- writing

    def save(self, write: Write) -> float:
        """Write a checkpoint; returns the seconds it took.

        Raises:
            NotSavedError: It cannot be written. The checkpoints that were there are as they were.
        """
        start = time.perf_counter()
        try:
            write(self.begin())
            self.commit()
        except BaseException as error:
            shutil.rmtree(self.part, ignore_errors=True)
            known = isinstance(error, TextEnvError)  # what `write` says itself
            if known or not isinstance(error, OSError | SafetensorError):
                raise
            kept = next(self.candidates(), None)
            raise NotSavedError(
                f"no checkpoint could be written in {self.folder}: {reason(error)}"
                + (f"; the last whole one is in {kept}" if kept else "")
            ) from error
        return time.perf_counter() - start

    def begin(self) -> Path:
        """Remove what an earlier save has left half, and make the empty folder to write into."""
        where = self.folder.resolve()
        if where in (here := Path.cwd(), *here.parents):
            raise OSError(
                f"{where} is the working folder or one above it, and a checkpoint takes the place "
                "of its folder: name a folder of its own, such as one within it"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is a file, not a folder: choose another place")
        if self._made_before and not self.folder.parent.exists():
            warnings.warn(
                f"the folder {self.folder.parent} is gone, and all that was in it; it is made "
                "again for the next checkpoint",
                NotSavedWarning,
                stacklevel=3,
            )
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.part.exists():
            shutil.rmtree(self.part)
        self.part.mkdir()
        return self.part

    def commit(self) -> Path:
        """Put what was written into place, and remove what is beyond `keep`."""
        seal(self.part)
        displaced = self._name_before() if self.folder.exists() else None
        if displaced is not None:
            os.rename(self.folder, displaced)
        try:
            os.rename(self.part, self.folder)
        except OSError:
            if displaced is not None:
                os.rename(displaced, self.folder)
            raise
        flush(self.folder.parent)
        self._made_before = True
        before = list(self._before())
        whole = [path for path in before if path.absolute() not in _DAMAGED]
        for path in {*before} - {*whole[: self.keep - 1]}:
            self._remove(path)
        _DAMAGED.difference_update(path.absolute() for path in (self.folder, *before))
        return self.folder

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Around a run that writes checkpoints: another process that would write them is refused.

        Within it, it may be entered again.

        What a kill has left is undone: half a checkpoint, or a newest one that is not in its place.

        Raises:
            CheckpointError: Another process is writing them.
        """
        if self._is_owned:
            yield
            return
        lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout as error:
            raise CheckpointError(
                f"another process is writing the checkpoints in {self.folder}: wait for it, end "
                "it, or choose another folder"
            ) from error
        except (OSError, NotImplementedError):
            pass  # a disk that cannot lock, or cannot be written, which the first save will say
        try:
            shutil.rmtree(self.part, ignore_errors=True)
            if not self.folder.exists() and (before := next(self._before(), None)) is not None:
                os.rename(before, self.folder)
            self._is_owned = True
            yield
        finally:
            self._is_owned = False
            if lock.is_locked:  # filelock looks whether the file that it has locked is still there
                Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()

    def are_being_written(self) -> bool:
        """Whether a process, this one included, is in `owned`."""
        if self._is_owned:
            return True
        try:
            with self.owned():
                return False
        except CheckpointError:
            return True

    def remove(self) -> None:
        """Remove all of them: the run is done, and what it has made stands elsewhere.

        Other files that lie in one go to the folder above.
        """
        for path in (*self._before(), self.folder):  # the newest goes last
            if path.exists():
                for entry in self._foreign(path) if (path / MANIFEST).exists() else []:
                    above = path.with_name(entry.name)
                    if above.exists():
                        above = path.with_name(f"{path.name}-{entry.name}")
                    os.rename(entry, above)
                os.rename(path, self.part)
                shutil.rmtree(self.part)

    # ---------------------------------------------------------------- reading

    def newest(self) -> Path | None:
        """The newest whole checkpoint; None if there is none at all.

        Raises:
            CheckpointError: There are some, and all of them are damaged.

        Warns:
            DamagedCheckpointWarning: A newer one is damaged; the message says which file of it.
        """
        damaged: list[str] = []
        for path in self.candidates():
            wrong = damage(path)
            if wrong is None and not ((path / MANIFEST).exists() or self._is_old(path)):
                wrong = f"{MANIFEST} is missing"
            if wrong is None:
                if damaged:
                    warnings.warn(
                        f"{'; '.join(damaged)}. The one before, {path}, is used instead.",
                        DamagedCheckpointWarning,
                        stacklevel=2,
                    )
                return path
            _DAMAGED.add(path.absolute())
            damaged.append(f"the checkpoint {path} is damaged: {wrong}")
        if damaged:
            raise CheckpointError(
                f"{'; '.join(damaged)}. There is none before: to begin again, remove it"
            )
        return None

    def candidates(self) -> Iterator[Path]:
        """All checkpoints, the newest first, whole or not."""
        if self.folder.exists():
            yield self.folder
        yield from self._before()

    # ---------------------------------------------------------------- the ones before

    def _before(self) -> Iterator[Path]:
        """Those that stand beside the newest, from new to old."""
        form = re.compile(re.escape(self.folder.name) + r"\.before-\d{6,}")
        if not self.folder.parent.is_dir():
            return
        found = (path for path in self.folder.parent.iterdir() if form.fullmatch(path.name))
        yield from sorted(found, key=_number, reverse=True)

    def _name_before(self) -> Path:
        """The name for the one that is replaced next."""
        last = next(self._before(), None)
        number = 1 if last is None else _number(last) + 1
        path = self.folder.with_name(f"{self.folder.name}.before-{number:06d}")
        if self.folder.absolute() in _DAMAGED:
            _DAMAGED.add(path.absolute())
        return path

    def _is_old(self, path: Path) -> bool:
        """Whether one without a manifest may be of version 0.1, which kept a single one."""
        sealed = any((before / MANIFEST).exists() for before in self._before())
        return path == self.folder and not sealed and any(path.iterdir())

    def _remove(self, path: Path) -> None:
        """Remove one that was replaced, but for files that others have put there."""
        for entry in self._foreign(path):
            if not (self.folder / entry.name).exists():
                os.rename(entry, self.folder / entry.name)
        # Under a name that the next save removes: if this is killed, nothing half looks like one.
        os.rename(path, self.part)
        shutil.rmtree(self.part)

    def _foreign(self, path: Path) -> list[Path]:
        """What others have put into one of them."""
        known = _listed(path)
        return [entry for entry in path.iterdir() if entry.name not in known]


def _number(before: Path) -> int:
    """The number in the name of one that was replaced."""
    return int(before.name.rpartition("-")[2])


# -------------------------------------------------------------------- the manifest


def seal(folder: Path) -> None:
    """Write the manifest of a folder, and flush the folder to disk with all that is in it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    content = {
        "format": FORMAT,
        "versions": {"textenv": textenv.__version__, "torch": metadata.version("torch")},
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "blake2b": checksum(path),
            }
            for path in files
        },
    }
    (folder / MANIFEST).write_bytes(_text(content))
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in (*files, folder / MANIFEST, *folders, folder):
        flush(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is as it was written.

    Those of version 0.1 have no manifest and cannot be examined.
    """
    try:
        found = (folder / MANIFEST).read_bytes()
        content = json.loads(found)
        if content["format"] != FORMAT:
            return f"its manifest has format {content['format']}, and this version reads {FORMAT}"
        del content["checksum"]
        if found != _text(content):
            return f"{MANIFEST} is not as it was written"
        for name, known in content["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != known["bytes"]:
                return f"{name} has {size:,} bytes and was written with {known['bytes']:,}"
            if checksum(path) != known["blake2b"]:
                return f"{name} is not as it was written: its checksum is another"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file that it names cannot be read: {reason(error)}"
    return None


def _text(content: dict[str, Any]) -> bytes:
    """A manifest as it stands on disk, with the checksum of its own content."""
    plain = json.dumps(content, sort_keys=True)
    checksum = hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()
    return (json.dumps({"checksum": checksum, **content}, indent=1) + "\n").encode()


def checksum(path: Path) -> str:
    """BLAKE2 of a file's content, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _listed(folder: Path) -> set[str]:
    """The names on the top level of a folder that belong to its checkpoint."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        return {MANIFEST, *(name.partition("/")[0] for name in files)}
    except (OSError, ValueError, KeyError, TypeError):
        return {MANIFEST}


# -------------------------------------------------------------------- single files


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is whole, or as it was before, whenever the process dies.

    Half a character (a lone surrogate), which UTF-8 has not, is written as JSON escapes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    # Bytes: line ends stay as they are on every system.
    beside.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    flush(beside)
    os.replace(beside, path)
    flush(path.parent)


def append_whole(path: Path, text: str) -> None:
    """Append lines to a text file, on the disk when this returns; a kill may leave half of them."""
    with path.open("ab") as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
    flush(path)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # pragma: no cover  # cannot be opened there
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

"""Checkpoints: whole or not there, whatever happens to the process or to the disk."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agents.runs.checkpoints import MANIFEST, Checkpoints, damage, write_whole
from textenv.errors import (
    CheckpointError,
    DamagedCheckpointWarning,
    NotSavedError,
    NotSavedWarning,
)


def writer(number: int):
    """Writes two files of one number, one of them in a folder."""

    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "a.txt").write_text(f"{number}\n" * 50)
        (folder / "deep" / "b.bin").write_bytes(bytes([number]) * 400)

    return write


def number_in(folder: Path | None) -> int | None:
    """The number that was written, which both files must hold."""
    if folder is None:
        return None
    (number,) = set((folder / "a.txt").read_text().split())
    assert (folder / "deep" / "b.bin").read_bytes() == bytes([int(number)]) * 400
    return int(number)


def saved(folder: Path, count: int = 3, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder / "run" / "checkpoint", keep)
    for number in range(1, count + 1):
        checkpoints.save(writer(number))
    return checkpoints


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_last_ones_are_kept_the_newest_in_its_place(tmp_path, keep):
    checkpoints = saved(tmp_path, 5, keep)
    assert checkpoints.newest() == checkpoints.folder
    assert list(map(number_in, checkpoints.candidates())) == list(range(5, 5 - min(keep, 5), -1))
    assert len(list((tmp_path / "run").iterdir())) == min(keep, 5)
    content = json.loads((checkpoints.folder / MANIFEST).read_text())
    assert set(content["versions"]) == {"textenv", "torch"}
    assert {name: file["bytes"] for name, file in content["files"].items()} == {
        "a.txt": 100,
        "deep/b.bin": 400,
    }


def test_none_and_too_few(tmp_path):
    assert Checkpoints(tmp_path / "absent" / "checkpoint").newest() is None
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, keep=0)


def test_two_hundred_damaged_ones_are_named_and_the_one_before_is_used(tmp_path):
    """A byte that is flipped or a tail that is cut, anywhere, in the manifest too."""
    checkpoints = saved(tmp_path)
    files = sorted(path for path in checkpoints.folder.rglob("*") if path.is_file())
    assert len(files) == 3
    chance, named = random.Random(0), set()
    for case in range(200):
        path = files[case % len(files)]
        whole = path.read_bytes()
        place = chance.randrange(len(whole))
        if case % 2:
            path.write_bytes(whole[:place])
        else:
            flipped = whole[place] ^ chance.randrange(1, 256)
            path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        with pytest.warns(DamagedCheckpointWarning) as caught:
            found = checkpoints.newest()
        assert number_in(found) == 2, case
        (warning,) = caught
        assert str(checkpoints.folder) in str(warning.message) and str(found) in str(
            warning.message
        )
        if path.name != MANIFEST:
            assert path.name in str(warning.message), case
        named.add(path.name)
        path.write_bytes(whole)
    assert len(named) == 3 and number_in(checkpoints.newest()) == 3


def test_a_file_that_is_missing_and_a_format_of_the_future(tmp_path):
    checkpoints = saved(tmp_path)
    (checkpoints.folder / "a.txt").rename(tmp_path / "a.txt")
    assert damage(checkpoints.folder) == "a.txt is missing"
    (tmp_path / "a.txt").rename(checkpoints.folder / "a.txt")
    manifest = checkpoints.folder / MANIFEST
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 7'))
    assert damage(checkpoints.folder) == "its manifest has format 7, and this version reads 1"


def test_all_damaged(tmp_path):
    checkpoints = saved(tmp_path)
    for path in checkpoints.candidates():
        (path / "a.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"before-000002 is damaged: a.txt has 0 bytes"):
        checkpoints.newest()


def test_a_damaged_one_is_not_among_those_that_are_kept(tmp_path):
    checkpoints = saved(tmp_path)
    (checkpoints.folder / "a.txt").write_text("")
    with pytest.warns(DamagedCheckpointWarning):
        assert number_in(checkpoints.newest()) == 2
    checkpoints.save(writer(4))
    assert list(map(number_in, checkpoints.candidates())) == [4, 2]


def test_what_another_object_found_damaged_does_not_push_out_a_whole_one(tmp_path):
    checkpoints = saved(tmp_path)
    (checkpoints.folder / "a.txt").write_text("")
    with pytest.warns(DamagedCheckpointWarning):
        assert number_in(Checkpoints(checkpoints.folder).newest()) == 2
    Checkpoints(checkpoints.folder, keep=2).save(writer(4))
    assert list(map(number_in, checkpoints.candidates())) == [4, 2]
    (checkpoints.folder / MANIFEST).unlink()
    with pytest.warns(DamagedCheckpointWarning, match=r"manifest\.json is missing"):
        assert number_in(checkpoints.newest()) == 2


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        Checkpoints(tmp_path / "checkpoint").newest()


def test_a_folder_that_others_have_written_into_loses_nothing(tmp_path):
    """Checkpoints of version 0.1 have no manifest, and people keep notes."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "a.txt").write_text("of an earlier version")
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() == folder
    for number in (1, 2):
        checkpoints.save(writer(number))
        assert (folder / "notes.txt").read_text() == "mine"
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert number_in(checkpoints.newest()) == 2


def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".", tmp_path, tmp_path.parent):
        with pytest.raises(NotSavedError, match="is the working folder or one above it"):
            Checkpoints(folder).save(writer(1))
    Checkpoints("here").save(writer(1))
    assert number_in(Checkpoints("here").newest()) == 1


def test_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for number in (1, 2):
        Checkpoints(tmp_path / "link").save(writer(number))
    assert (tmp_path / "link").is_symlink() and number_in(tmp_path / "link") == 2


def test_removed_when_the_run_is_done(tmp_path):
    checkpoints = saved(tmp_path)
    checkpoints.remove()
    assert list((tmp_path / "run").iterdir()) == []


def test_files_of_others_stay_when_the_run_is_done(tmp_path):
    checkpoints = saved(tmp_path)
    run = tmp_path / "run"
    (run / "same.txt").write_text("above")
    for name in ("notes.txt", "same.txt"):
        (checkpoints.folder / name).write_text("mine")
    checkpoints.remove()
    found = {path.name: path.read_text() for path in run.iterdir()}
    assert found == {
        "notes.txt": "mine",
        "same.txt": "above",
        f"{checkpoints.folder.name}-same.txt": "mine",
    }


def test_a_lock_file_that_was_removed_meanwhile_locks_nothing(tmp_path, monkeypatch):
    """Its owner removes it when it ends: whoever has opened it just before must begin anew."""
    fcntl = pytest.importorskip("fcntl", reason="other systems lock otherwise")
    checkpoints = Checkpoints(tmp_path / "run")
    lock, real = tmp_path / ".run.lock", fcntl.flock
    calls = []

    def flock(number, operation):
        calls.append(operation)
        if len(calls) == 1:
            lock.unlink()
        return real(number, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with checkpoints.owned():
        assert lock.exists() and checkpoints.are_being_written()


# --- a disk that fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename", "write_bytes"])
def test_an_error_while_saving_leaves_the_last_whole_one(tmp_path, monkeypatch, call):
    checkpoints = saved(tmp_path)
    owner = os if call in ("fsync", "rename") else Path
    with monkeypatch.context() as patch:

        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        patch.setattr(owner, call, full)
        with pytest.raises(NotSavedError, match=r"No space left.*the last whole one is in"):
            checkpoints.save(writer(4))
    assert number_in(checkpoints.newest()) == 3
    checkpoints.save(writer(5))
    assert list(map(number_in, checkpoints.candidates())) == [5, 3]


def test_a_folder_that_may_not_be_written(tmp_path):
    if os.geteuid() == 0:  # whom no permission stops: a file in the way does
        (tmp_path / "run").write_text("")
    else:
        (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(NotSavedError, match="no checkpoint could be written in"):
        saved(tmp_path)


def test_a_folder_that_vanished_is_made_again_and_said(tmp_path):
    checkpoints = saved(tmp_path)
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(NotSavedWarning, match="run is gone, and all that was in it"):
        checkpoints.save(writer(4))
    assert number_in(checkpoints.newest()) == 4


# --- kills that are aimed -------------------------------------------------------------------------


def test_a_kill_before_or_after_any_system_call_of_a_save(tmp_path):
    """Twice before and twice after each; then the next save is made, and nothing is left over."""
    driver = Path(__file__).parents[2] / "drivers" / "kill_saves.py"
    run = subprocess.run(
        [sys.executable, driver, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    told = json.loads(run.stdout)
    assert told["kills"] >= 40 and told["kills"] == 4 * len(told["calls"])
    assert {"mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"} == set(told["calls"])
    assert told["found"].keys() == {"3", "4"}  # the one before until the rename, then the new one


def test_a_text_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "result.json"
    write_whole(path, "first \udc80\r\n")
    assert path.read_bytes() == b"first \\udc80\r\n"
    monkeypatch.setattr(os, "replace", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_whole(path, "second")
    assert path.read_bytes() == b"first \\udc80\r\n"

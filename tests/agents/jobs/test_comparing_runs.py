"""What a command that goes on compares, and how it says what differs."""

import pytest
from rich.console import Console

from agents.commands.shared import Saved
from agents.jobs import going_on
from agents.jobs.going_on import as_typed, fingerprint, part_of_stage
from agents.runs.checkpoints import Checkpoints
from textenv.errors import CheckpointError


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        ("['/a b.jsonl', 'c']", "with --some-data '/a b.jsonl' --some-data c"),
        (str(["/it's.jsonl", "c"]), """with --some-data '/it'"'"'s.jsonl' --some-data c"""),
        ("3", "with --some-data 3"),
        ("True", "with --some-data"),
        ("False", "without --some-data"),
        ("[]", "without --some-data"),
        (None, "without --some-data"),
    ],
)
def test_options_are_shown_as_they_are_typed(value, typed):
    assert as_typed("some_data", value) == typed


def test_a_large_file_is_compared_in_places(tmp_path, monkeypatch):
    monkeypatch.setattr(going_on, "PIECES", 4)
    monkeypatch.setattr(going_on, "PIECE", 10)
    path = tmp_path / "weights"
    seen = set()
    for content in (b"x" * 40, b"x" * 41, b"x" * 99, b"y" + b"x" * 98, b"x" * 98 + b"y"):
        path.write_bytes(content)
        assert fingerprint(path) == fingerprint(path)
        seen.add(fingerprint(path))
    assert len(seen) == 5
    path.write_bytes(b"x" * 45 + b"y" + b"x" * 53)  # between two pieces
    assert fingerprint(path) in seen


def test_a_part_that_was_made_from_something_else_begins_again(tmp_path):
    """Also where a kill within a save has left half a checkpoint beside it."""
    folder, console = tmp_path / "stage" / "checkpoint", Console(quiet=True)

    def part(key):
        return part_of_stage(folder, key, Saved(), console)

    with part("old").saving() as saving:
        saving.finish()
    (Checkpoints(folder).begin() / "weights").write_text("half of th")
    with Checkpoints(folder).owned(), pytest.raises(CheckpointError, match="another process"):
        part("new")
    (Checkpoints(folder).begin() / "weights").write_text("half of th")
    assert part("old").saved is not None
    assert part("new").saved is None
    assert list(folder.parent.iterdir()) == []

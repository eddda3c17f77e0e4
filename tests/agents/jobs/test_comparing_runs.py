"""What a command that goes on compares, and how it says what differs."""

import pytest

from agents.jobs import going_on
from agents.jobs.going_on import as_typed, fingerprint


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

import json

import pytest

from agents.jobs.recipe.caching import cached, key_of, made_from, seconds_of


def test_a_stage_is_made_once_for_each_key(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "made.txt").write_text(str(len(calls)))

    assert cached(tmp_path / "stage", "one", make) is False
    assert cached(tmp_path / "stage", "one", make) is True
    assert (tmp_path / "stage" / "made.txt").read_text() == "1"
    assert cached(tmp_path / "stage", "two", make) is False
    assert (tmp_path / "stage" / "made.txt").read_text() == "2"
    assert made_from(tmp_path / "stage") == "two"
    assert seconds_of(tmp_path / "stage") >= 0


def test_a_stage_that_was_stopped_leaves_what_was_there(tmp_path):
    cached(tmp_path / "stage", "one", lambda folder: (folder / "a").write_text("kept"))

    def stopped(folder):
        (folder / "a").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "stage", "two", stopped)
    assert (tmp_path / "stage" / "a").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


def test_what_goes_wrong_in_a_stage_is_not_called_a_full_disk(tmp_path):
    def make(folder):
        raise ConnectionError("the judge does not answer")

    with pytest.raises(ConnectionError, match=r"^the judge does not answer$"):
        cached(tmp_path / "stage", "one", make)
    assert list(tmp_path.iterdir()) == []


def test_keys_differ_where_settings_do():
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", json.loads('{"y": 2, "x": 1}'))
    assert key_of("a", 1) != key_of("a", 2)

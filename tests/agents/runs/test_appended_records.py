"""Records are added to files that people edit, too."""

import json

import pytest

from agents.feedback.from_people.chat_log import ChatLog
from agents.feedback.from_people.watched import Watched, append_watched, read_watched
from agents.runs.record_files import append_records, cut_half_record


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_last_line_without_an_end_is_not_joined(tmp_path, end):
    path = tmp_path / "new" / "records.jsonl"
    append_records(path, [{"a": "\u4e2d"}, {"a": "\ud83d"}])
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + end, encoding="utf-8")
    append_records(path, [{"a": 3}])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["a"] for line in lines] == ["\u4e2d", "\ud83d", 3]


def test_what_people_say_is_added_in_the_same_way(tmp_path):
    watched = Watched("a", [0], "b", [1], [1.0], [1.0])
    path = tmp_path / "watched.jsonl"
    path.write_text(json.dumps(watched.to_record()))
    append_watched(path, watched)
    assert read_watched(path) == [watched, watched]
    (tmp_path / "labels.jsonl").write_text("{}")
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ChatLog(tmp_path).dislike(said)
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ('{"a": 1}\n{"b": ', '{"a": 1}\n'),
        ('{"a": ', ""),
        ('{"a": 1}\n{"b": 2}', '{"a": 1}\n{"b": 2}'),
        ("my notes\nwithout an end", "my notes\nwithout an end"),
        ("my notes\n{of something", "my notes\n{of something"),
        ("", ""),
    ],
)
def test_half_a_record_is_cut_and_nothing_else(tmp_path, content, left):
    path = tmp_path / "file"
    path.write_text(content)
    cut_half_record(path)
    assert path.read_text() == left

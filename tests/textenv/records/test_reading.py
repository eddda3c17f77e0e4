import gzip

import pytest

from textenv.errors import MalformedRecordError
from textenv.records import read_files, read_records


def number(record):
    if "n" not in record:
        raise ValueError("no n")
    return record["n"]


def test_lines_of_a_plain_and_of_a_compressed_file(tmp_path):
    content = b'\xef\xbb\xbf{"n": 1}\n\n{"n": "\xe2\x80\xa8"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content))
    for name in ("a.jsonl", "b.jsonl.gz"):
        assert read_records(tmp_path / name, number) == [1, "\u2028"]


def test_bad_lines_of_all_files_are_reported_at_once(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b'{"n": 1}\n[]\n{"m": 1}\n{\n\xff\n')
    with pytest.raises(MalformedRecordError) as caught:
        read_files(
            [tmp_path / "a.jsonl", tmp_path / "b.jsonl"],
            lambda path: read_records(path, number, "numbers"),
        )
    for name in ("a.jsonl", "b.jsonl"):
        for line in (2, 3, 4, 5):
            assert f"{name}:{line}: " in str(caught.value)


def test_only_the_first_ten_are_listed(tmp_path):
    (tmp_path / "a.jsonl").write_text("[]\n" * 13)
    with pytest.raises(MalformedRecordError, match="and 3 more") as caught:
        read_records(tmp_path / "a.jsonl", number)
    assert str(caught.value).count("a.jsonl:") == 10


@pytest.mark.parametrize("content", [None, b"no gzip"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "a.jsonl.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MalformedRecordError, match=r"a\.jsonl\.gz"):
        read_records(path, number)

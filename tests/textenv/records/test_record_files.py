"""Files and objects that hold records."""

import bz2
import gzip
import json
import lzma

import pytest

from textenv import load_prompts
from textenv.errors import MalformedRecordError, MissingFileError, PromptError
from textenv.records import parsed, placed_records, read_records

pyarrow = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")
datasets = pytest.importorskip("datasets")

RECORDS = [
    {"prompt": "é\u2028", "n": 1},
    {"prompt": "b\nc", "n": 2},
    {"prompt": "", "n": 3},
]
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


def as_parquet(records):
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(records), sink)
    return sink.getvalue().to_pybytes()


WRITE = {
    ".jsonl": lambda records: "\r\n\n".join(
        json.dumps(one, ensure_ascii=False) for one in records
    ).encode(),
    ".json": lambda records: b"\xef\xbb\xbf" + json.dumps(records, indent=1).encode(),
    ".parquet": as_parquet,
}


def same(record):
    return record


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", WRITE)
def test_every_format_in_every_compression(tmp_path, kind, compression):
    path = tmp_path / f"a{kind}{compression}"
    path.write_bytes(COMPRESS[compression](WRITE[kind](RECORDS)))
    assert read_records(path, same) == RECORDS
    assert [prompt.text for prompt in load_prompts(path).prompts] == ["é\u2028", "b\nc", ""]


def test_the_line_of_each_record(tmp_path):
    for name, content, numbers in (
        ("a.jsonl", b"\n\n{}\r\n\r\n{}", [3, 5]),
        ("a.json", b" [ {},\n{\n} ,\n\n {}]\n", [1, 2, 5]),
        ("b.json", b"\n{}\n\n{}", [2, 4]),  # lines that are called .json
        ("c.json", b"[]", []),
        ("a.parquet", as_parquet([{"n": 1}, {"n": 2}]), [1, 2]),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert [p for p, _ in placed_records(path, same)] == [f"{path}:{n}" for n in numbers], name


@pytest.mark.parametrize("make", [list, iter, tuple, datasets.Dataset.from_list])
def test_objects_that_give_records(make):
    assert read_records(make(RECORDS), same) == RECORDS
    assert [prompt.columns["n"] for prompt in load_prompts(make(RECORDS)).prompts] == [1, 2, 3]


def test_streams_of_datasets(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(WRITE[".jsonl"](RECORDS))
    stream = datasets.Dataset.from_list(RECORDS).to_iterable_dataset()
    assert read_records(stream, same) == RECORDS
    assert [prompt.origin for prompt in load_prompts(stream.take(2)).prompts] == [
        "records[0]",
        "records[1]",
    ]


def test_what_is_not_asked_for_is_not_read():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield {"n": len(taken)}

    records = parsed(endless(), same)
    assert [next(records)[1] for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert len(taken) == 3


def test_lines_are_read_one_by_one(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    # Damaged at the end: what stands before is there all the same.
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 200_000)[:-9])
    records = parsed(path, same)
    assert next(records) == (f"{path}:1", {"n": 1})
    with pytest.raises(MalformedRecordError, match=r"a\.jsonl\.gz cannot be read"):
        list(records)


@pytest.mark.parametrize("suffix", [".jsonl.bz2", ".jsonl.xz", ".json.zst", ".parquet"])
def test_a_damaged_file_is_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no such file" * 9)
    with pytest.raises(MalformedRecordError, match=f"{path} cannot be read"):
        read_records(path, same)


def test_a_file_that_is_missing_or_of_no_known_format(tmp_path):
    with pytest.raises(MissingFileError):
        read_records(tmp_path / "a.parquet", same)
    (tmp_path / "a.yaml").write_text("a")
    with pytest.raises(MalformedRecordError, match=r"ending that is not known.*\.jsonl"):
        read_records(tmp_path / "a.yaml", same)


@pytest.mark.parametrize("source", [{"a": 1}, b"abc", 3])
def test_objects_that_give_none(source):
    with pytest.raises(MalformedRecordError, match="gives no records"):
        read_records(source, same)


def test_a_bad_record_of_an_object_is_named_by_its_number():
    with pytest.raises(PromptError, match=r"records\[1\]: .*3 of type int"):
        load_prompts(iter([{"prompt": "a"}, {"prompt": 3}]))

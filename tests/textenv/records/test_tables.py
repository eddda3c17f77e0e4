"""Records in tables of texts, CSV and TSV."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.feedback import read_rankings
from agents.supervised import read_examples
from textenv import load_prompts
from textenv.errors import MalformedRecordError
from textenv.records import placed_records, read_records

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def same(record):
    return record


def test_a_cell_may_hold_lines_quotes_and_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbfprompt,response,system\r\n\r\n"1\n2, ""3""",\xc3\xa9,\r\n  x ,y,be brief'
    )
    first, second = placed_records(path, same)
    assert first == (f"{path}:3", {"prompt": '1\n2, "3"', "response": "é", "system": None})
    assert second == (f"{path}:5", {"prompt": "  x ", "response": "y", "system": "be brief"})
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"prompt\tanswer\n2, 3\t5\n"))
    (prompt,) = load_prompts(path).prompts
    assert (prompt.text, prompt.columns) == ("2, 3", {"answer": "5"})


@given(st.lists(st.fixed_dictionaries({"a": cells, "b": cells}), max_size=5))
def test_what_the_csv_module_writes_is_read(tmp_path_factory, records):
    for kind, delimiter in ((".csv", ","), (".tsv", "\t")):
        text = io.StringIO()
        writer = csv.DictWriter(text, ["a", "b"], delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(records)
        path = tmp_path_factory.mktemp("tables") / f"a{kind}"
        path.write_bytes(text.getvalue().encode())
        expected = [{name: value or None for name, value in one.items()} for one in records]
        assert read_records(path, same) == expected


def test_the_forms_that_fit_into_a_table(tmp_path):
    (tmp_path / "pairs.csv").write_text("prompt,chosen,rejected\nHi,a,b\n")
    (ranking,) = read_rankings(tmp_path / "pairs.csv")
    assert ranking.answers == ("a", "b") and ranking.ranks == (1, 2)
    (tmp_path / "told.csv").write_text("instruction,input,output\nAdd.,1 and 2,3\nSay a.,,a\n")
    assert [one.pieces[0][0] for one in read_examples(tmp_path / "told.csv")] == [
        "User: Add.\n1 and 2\nAssistant:",
        "User: Say a.\nAssistant:",
    ]
    (tmp_path / "talk.csv").write_text('messages\n"[{""role"": ""user""}]"\n')
    with pytest.raises(MalformedRecordError, match=r"talk\.csv:2: 'messages' is .* not a list"):
        read_examples(tmp_path / "talk.csv")


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        (b"a,b\n1,2\n3\n4,5", 3, r"a row of 1 cells, and the first line names 2 columns \(a, b\)"),
        (b"a,b\n1,2,3\n", 2, "a row of 3 cells"),
        (b'a,b\n"1\n2",3\n"4"5,6\n7,8', 4, "not a row of a table, ',' expected after"),
        (b'a,b\n1,2\n"3,4\n5,6\n', 3, "not a row of a table, unexpected end of data"),
        (b"a,b\n1,2\n\xff,4\n5,6", 3, r"'\\udcff' is not UTF-8"),
        (b"a,a\n1,2\n", 1, "name the columns, each once"),
        (b"\n\na,,b\n1,2,3\n", 3, "name the columns, each once"),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_rows_that_are_wrong_are_told_by_their_line(tmp_path, table, line, message, compress):
    path = tmp_path / ("t.csv" if compress is bytes else "t.csv.gz")
    path.write_bytes(compress(table))
    with pytest.raises(MalformedRecordError, match=rf"t\.csv(\.gz)?:{line}: .*{message}") as error:
        read_records(path, same)
    assert str(error.value).count("\n") == 1  # the other rows are right


def test_a_document_may_be_long_and_the_modules_limit_stays(tmp_path):
    path, limit = tmp_path / "long.csv", csv.field_size_limit()
    path.write_text(f"text\n{'a' * 200_000}\n")
    ((_, record),) = placed_records(path, same)
    assert len(record["text"]) == 200_000 and csv.field_size_limit() == limit
    assert read_records(tmp_path / "long.csv", same) == [record]
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "names.csv").write_text("a,b\n")
    assert read_records(tmp_path / "empty.csv", same) == []
    assert read_records(tmp_path / "names.csv", same) == []

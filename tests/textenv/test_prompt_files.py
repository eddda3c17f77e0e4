"""Files of prompts: encodings, line ends, and reports of what is wrong in them."""

import json
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenv.errors import EmptyPromptsError, MalformedRecordError, PromptError
from textenv.prompts import ListPrompts, Prompt, load_prompts


def read(file: Path | str) -> tuple[Prompt, ...]:
    source = load_prompts(file)
    assert isinstance(source, ListPrompts)
    return source.prompts


def texts(file: Path | str) -> list[str]:
    return [prompt.text for prompt in read(file)]


def test_a_text_file(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffthe \r\n\n  \t\n  é漢\u2028字\nlast".encode())
    assert texts(file) == ["the ", "  é漢\u2028字", "last"]
    assert texts(str(file)) == ["the ", "  é漢\u2028字", "last"]


def test_a_jsonl_file(tmp_path):
    file = tmp_path / "p.JSONL"
    rows = [
        {"prompt": "2+2=", "answer": "4", "deep": {"k": [1, None]}},
        {"tokens": [5, 6]},
        {"prompt": "a\u2028b\x85c\nd"},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_bytes("\r\n\n".join(lines).encode())
    first, second, third = read(file)
    assert (first.text, first.columns) == ("2+2=", {"answer": "4", "deep": {"k": [1, None]}})
    assert second.tokens.tolist() == [5, 6]
    assert third.text == "a\u2028b\x85c\nd"


@given(st.lists(st.text().filter(lambda s: s.strip()), min_size=1, max_size=4))
def test_any_text_survives_a_jsonl_file(tmp_path_factory, prompts):
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    lines = [json.dumps({"prompt": p}, ensure_ascii=False) for p in prompts]
    file.write_bytes("\n".join(lines).encode())
    assert texts(file) == prompts


def test_malformed_lines_are_reported_together(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_bytes(
        textwrap.dedent(
            """\
            {"prompt": "fine"}
            {"prompt": "cut
            ["a", "list"]

            {"question": "which key?"}
            {"prompt": "\\ud800"}
            {"tokens": [1, -2]}
            """
        ).encode()
        + b'{"prompt": "\xff"}\n'
    )
    with pytest.raises(MalformedRecordError) as e:
        load_prompts(file)
    message = str(e.value)
    reported = {line.removeprefix(f"{file}:").split(":")[0] for line in message.splitlines()[1:]}
    assert reported == {"2", "3", "5", "6", "7", "8"}
    assert f"{file}:2: not JSON" in message
    assert "8: 'utf-8' codec can't decode byte 0xff" in message


def test_only_ten_malformed_lines_are_listed(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text("{}\n" * 13)
    with pytest.raises(MalformedRecordError) as e:
        load_prompts(file)
    lines = str(e.value).splitlines()
    assert len(lines) == 12 and lines[-1] == "and 3 more"
    assert lines[10].startswith(f"{file}:10:")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"prompt": ' + "9" * 5000 + "}"])
def test_json_that_python_gives_up_on_is_malformed(tmp_path, line):
    file = tmp_path / "p.jsonl"
    file.write_text(line)
    with pytest.raises(MalformedRecordError, match=":1: "):
        load_prompts(file)


def test_a_text_file_in_another_encoding(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("fine\ncafé\n".encode("latin-1"))
    with pytest.raises(MalformedRecordError, match=r"p\.txt:2: .*utf-8"):
        load_prompts(file)


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n \r\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_prompts(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(EmptyPromptsError, match=name):
        load_prompts(file)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PromptError, match=r"absent\.txt cannot be read") as e:
        load_prompts(tmp_path / "absent.txt")
    assert isinstance(e.value.__cause__, FileNotFoundError)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(PromptError, match=r"folder\.jsonl cannot be read"):
        load_prompts(tmp_path / "folder.jsonl")
    with pytest.raises(PromptError, match=r"\.txt or \.jsonl"):
        load_prompts(tmp_path / "table.xml")

"""Hundreds of records with something wrong, each reported by its file and line."""

import bz2
import gzip
import io
import json
import lzma
import re

import pytest
from published_forms import CONVERSATIONS, RANKINGS, TEXTS

from agents.feedback import read_rankings
from agents.supervised import read_examples
from textenv import load_prompts
from textenv.errors import MalformedRecordError

pyarrow = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")

AT_A_TIME = 10
"""So many are listed."""

# What cannot stand where a form has a text or a list that it needs.
WRONG = [None, 3, True, [], [3], [None], [[]], {"a": 1}, [{"role": "boss", "content": "a"}]]
NEEDED = {
    "OpenAI": ["messages"],
    "UltraChat": ["data"],
    "ShareGPT": ["conversations"],
    "LMSYS chat": ["conversation"],
    "Alpaca": ["instruction", "output"],
    "OpenOrca": ["response"],
    "GSM8K": ["answer"],
    "MOSS": ["chat"],
    "OpenAssistant": ["prompt"],
    "TRL texts": ["completion"],
    "FLAN": ["inputs", "targets"],
    "pCLUE": ["input", "target"],
}
NEEDED_OF_RANKINGS = {
    "ours": ["prompt", "answers", "ranks"],
    "TRL texts": ["prompt", "chosen", "rejected"],
    "TRL messages": ["chosen", "rejected"],
    "UltraFeedback": ["instruction", "completions"],
    "WebGPT": ["question", "answer_0", "score_1"],
    "OpenAI summaries": ["info", "summaries"],
    "SHP": ["human_ref_A", "human_ref_B"],
    "SafeRLHF": ["response_0"],
    "HelpSteer3": ["context", "overall_preference"],
    "Chatbot Arena": ["conversation_a", "winner"],
    "Nectar": ["answers"],
}
NUMBERS = ("score_1", "overall_preference")  # there 3 is right


def damaged(forms, needed):
    """Records with one thing wrong each."""
    return [
        {**forms[form][0], name: wrong}
        for form, names in needed.items()
        for name in names
        for wrong in WRONG
        if not (wrong == 3 and wrong is not True and name in NUMBERS)
    ]


NOT_JSON = [
    b"{",
    b'{"prompt": "a"',
    b"prompt",
    b"[]",
    b'"prompt"',
    b"3",
    b"null",
    b'{"prompt": "\xff", "response": "a"}',
    b"[" * 50_000,
    b'{"prompt": ' + b"9" * 5_000 + b"}",
    b"{'prompt': 'a'}",
    b'{"prompt": "a"}{"prompt": "a"}',
]
EXAMPLES = damaged({**CONVERSATIONS, **TEXTS}, NEEDED)
PREFERENCES = damaged(RANKINGS, NEEDED_OF_RANKINGS)
# A prompt needs what it asks alone, and names of its own go into its columns.
PROMPTS = [
    *damaged(CONVERSATIONS, {"OpenAI": ["messages"], "ShareGPT": ["conversations"]}),
    *damaged(CONVERSATIONS, {"Alpaca": ["instruction"], "MOSS": ["chat"]}),
    *damaged(TEXTS, {"FLAN": ["inputs"], "pCLUE": ["input"]}),
    *({name: text} for name in ("text", "chosen") for text in ("\n\nHuman:", "### Human: ")),
    {"messages": [{"role": "assistant", "content": "a"}]},
]
GOOD = {"prompt": "a", "response": "b", "chosen": "b", "rejected": "c"}
# Columns of Parquet have types, so only so much can be wrong.
SAID = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
IN_COLUMNS = [
    {"messages": None},
    {"messages": []},
    {"messages": SAID[:1]},
    {"messages": [{"role": "boss", "content": "a"}, SAID[1]]},
    {"messages": [SAID[0], {"role": "assistant", "content": None}]},
    {"messages": [{"role": None, "content": "a"}, SAID[1]]},
]


def in_parts(rows):
    return [rows[begin : begin + AT_A_TIME] for begin in range(0, len(rows), AT_A_TIME)]


def reported(read, path):
    """The numbers of the lines that an error names, all of them of this file."""
    with pytest.raises(MalformedRecordError) as caught:
        read(path)
    first, *listed = str(caught.value).splitlines()
    assert first.startswith("these lines are not ")
    found = [re.match(rf"{re.escape(str(path))}:(\d+): \S", line) for line in listed]
    assert all(found), listed
    return [int(one[1]) for one in found]


def as_lines(rows):
    """JSON lines, a good one and a blank one before each bad one, and the numbers of these."""
    good = json.dumps(GOOD).encode()
    written = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return b"".join(good + b"\n\n" + row + b"\n" for row in written), range(3, 3 * len(rows) + 1, 3)


def as_list(rows):
    """A JSON list over several lines."""
    parts = [json.dumps(part) for row in rows for part in (GOOD, row)]
    return ("[\n" + ",\n\n".join(parts) + "]").encode(), range(4, 4 * len(rows) + 1, 4)


def as_parquet(rows):
    from pyarrow import parquet

    sink = io.BytesIO()
    good = {"messages": SAID}
    parquet.write_table(
        pyarrow.Table.from_pylist([part for row in rows for part in (good, row)]), sink
    )
    return sink.getvalue(), range(2, 2 * len(rows) + 1, 2)


FILES = [
    ("examples", read_examples, EXAMPLES, ".jsonl", as_lines, bytes),
    ("examples", read_examples, EXAMPLES[:40], ".json.xz", as_list, lzma.compress),
    ("examples", read_examples, NOT_JSON, ".jsonl.gz", as_lines, gzip.compress),
    ("examples", read_examples, IN_COLUMNS, ".parquet", as_parquet, bytes),
    ("prompts", load_prompts, PROMPTS, ".jsonl", as_lines, bytes),
    ("prompts", load_prompts, PROMPTS[:20], ".json.gz", as_list, gzip.compress),
    ("rankings", read_rankings, PREFERENCES, ".jsonl.bz2", as_lines, bz2.compress),
    ("rankings", read_rankings, PREFERENCES[-40:], ".json", as_list, bytes),
    ("rankings", read_rankings, NOT_JSON, ".jsonl", as_lines, bytes),
    ("prompts", load_prompts, NOT_JSON[:9], ".jsonl.zst", as_lines, zstandard.compress),
]


def test_there_are_more_than_three_hundred():
    assert sum(len(rows) for _, _, rows, *_ in FILES) > 300


@pytest.mark.parametrize(
    ("read", "rows", "ending", "write", "compress"),
    [case[1:] for case in FILES],
    ids=[f"{what}{ending}" for what, _, _, ending, *_ in FILES],
)
def test_each_is_reported_by_file_and_line(tmp_path, read, rows, ending, write, compress):
    for number, part in enumerate(in_parts(rows)):
        content, numbers = write(part)
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(compress(content))
        assert reported(read, path) == list(numbers), part


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("[{},\n{},\n", 3, "not JSON"),
        ('[\n{"a": 1}\n{"a": 1}]', 3, "does not go on"),
        ('[\n{"a": }]', 2, "not JSON"),
        ("[{}]\n\n{}", 1, "more behind the list"),
        ("[{},\n]", 2, "not JSON"),
        ("[{},\n" + "9" * 5_000 + "]", 2, "not JSON, .*digits"),
    ],
)
def test_where_a_json_list_breaks_off(tmp_path, content, line, said):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(MalformedRecordError, match=rf"a\.json:{line}: .*{said}"):
        read_examples(path)

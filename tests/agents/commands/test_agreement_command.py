"""`textenv agreement`: files of rankings in, figures out."""

import json
from pathlib import Path

import pytest
from command_line import run_command

pytest.importorskip("krippendorff", reason="krippendorff is not installed")


def write(path, ranks):
    records = [
        {"prompt": f"p{n}", "answers": ["yes", "no, thanks"], "ranks": some}
        for n, some in enumerate(ranks)
    ]
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("\n".join(map(json.dumps, records)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    write("ann.jsonl", [[1, 2]] * 8)
    write("ben.jsonl", [[1, 2]] * 6 + [[2, 1], [1, 1]])
    write("more/ann.jsonl", [[2, 1]] * 8)


def test_figures_are_shown_and_written():
    result = run_command("agreement", "ann.jsonl", "ben.jsonl", "--json", "new/out.json")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("new/out.json").read_text())
    (two,) = found["between"]
    assert (two["one"], two["other"], two["pairs"]) == ("ann", "ben", 8)
    assert two["same_order"]["mean"] == pytest.approx(6 / 7)
    for shown in ("ann and ben", "0.857 [0.5", "Fleiss' kappa 0.", "prefers shown first"):
        assert shown in result.output
    habits = {one["name"]: one for one in found["habits"]}
    assert habits["ben"]["ties"]["mean"] == 1 / 8
    assert habits["ann"]["longer"]["mean"] == 0 and habits["ann"]["earlier"]["mean"] == 1


def test_files_of_one_name_are_told_apart_by_their_paths():
    result = run_command("agreement", "ann.jsonl", "more/ann.jsonl")
    assert "ann.jsonl and more/ann.jsonl" in result.output
    assert "0.000 [0.000, 0.000]" in result.output


def test_rankings_that_name_their_labeller():
    def named(path, names):
        records = [json.loads(line) for line in Path("ann.jsonl").read_text().splitlines()]
        for record, name in zip(records, names, strict=False):
            record["labeller"] = name
        Path(path).write_text("\n".join(map(json.dumps, records)))

    named("both.jsonl", ["cid"] * 4 + ["dot"] * 4)
    result = run_command("agreement", "both.jsonl", "ben.jsonl")
    for pair in ("cid and dot", "cid and ben", "dot and ben"):
        assert pair in result.output
    named("other.jsonl", ["cid"] * 8)
    result = run_command("agreement", "both.jsonl", "other.jsonl")
    assert "cid in both and cid in other" in result.output


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("ann.jsonl",), "between labellers"),
        (("ann.jsonl", "ann.jsonl"), "named twice"),
        (("ann.jsonl", "none.jsonl"), "none.jsonl"),
        ((), "FILE... must be given"),
    ],
)
def test_mistakes_give_one_message(files, message):
    result = run_command("agreement", *files)
    assert result.exit_code in (1, 2) and "Traceback" not in result.output
    assert message in result.output

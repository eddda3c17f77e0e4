"""`textenv data` on files, and weights of files in it and in `textenv pretrain`."""

import json
from pathlib import Path

import pytest
from command_line import run_command
from published_forms import talk

from agents.jobs.weights import files_and_weights
from textenv.errors import OptionError

pytest.importorskip("ftfy")
pytest.importorskip("datasketch")
LONG = " ".join(f"word{i}" for i in range(20))
PAGES = [
    "It\u00e2\u20ac\u2122s wide.\nMenu",
    "A lake.\nMenu",
    "a  LAKE.\nMenu",
    LONG,
    LONG + " more",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "web.jsonl").write_text("".join(json.dumps({"text": p}) + "\n" for p in PAGES))
    said = {"messages": talk("Hi!", "Yes?")}
    (tmp_path / "talks.json").write_text(json.dumps([said]))
    (tmp_path / "quiz.txt").write_text(LONG.upper())
    return tmp_path


def run(*arguments):
    result = run_command(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def written(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_in_clean_lines_and_a_report_out(folder):
    shown = run(
        *("data", "--text", "web.jsonl", "--text", "talks.json", "--out", "out/clean.jsonl"),
        *("--boilerplate", 3, "--near", 0.7, "--held-out", "quiz.txt"),
    )
    assert written(folder / "out/clean.jsonl") == [
        {"text": "It\u2019s wide."},
        {"text": "A lake."},
        {"messages": talk("Hi!", "Yes?")},
    ]
    report = json.loads((folder / "out/clean.report.json").read_text())
    assert (report["read"], report["kept"], report["written"]) == (6, 3, 3)
    assert {part["step"]: part["documents"] for part in report["dropped"]} == {
        "exact duplicates": 1,
        "near duplicates": 1,
        "contamination": 1,
    }
    assert report["held_out"]["shares"] == [1.0]
    assert report["boilerplate_lines"] == {"Menu": 3}
    assert "6 documents, 3 kept" in shown and "web.jsonl:3" in shown
    assert "1 of 1 texts" in shown


def test_what_is_not_wanted_is_left_out(folder):
    run(
        *("data", "--text", "web.jsonl", "--out", "clean.jsonl", "--unrepaired"),
        *("--keep-repeated", "--held-out", "quiz.txt", "--keep-overlapping"),
    )
    assert [one["text"] for one in written(folder / "clean.jsonl")] == PAGES


def test_a_filter_by_name(folder):
    run(
        *("data", "--text", "web.jsonl", "--out", "clean.jsonl", "--filters", "gopher-quality"),
        *("--fewest-words", 3),
    )
    report = json.loads((folder / "clean.report.json").read_text())
    reasons = {part["reason"] for part in report["dropped"] if part["step"] == "gopher-quality"}
    assert reasons == {"no stop words"}
    assert written(folder / "clean.jsonl") == []


def test_a_mixture_has_the_shares_of_its_weights(folder):
    shown = run(
        *("data", "--text", "web.jsonl:1", "--text", "talks.json:3", "--out", "mixed.jsonl"),
        *("--count", 400, "--seed", 1),
    )
    lines = written(folder / "mixed.jsonl")
    share = sum("messages" in line for line in lines) / len(lines)
    assert len(lines) == 400 and share == pytest.approx(0.75, abs=0.1)
    mixture = json.loads((folder / "mixed.report.json").read_text())["mixture"]
    assert mixture["talks.json"]["items"] == round(400 * share)
    assert mixture["talks.json"]["epochs"] == round(400 * share)
    assert "talks.json: " in shown and "times" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "web.jsonl:2", "--out", "a.jsonl"), "--count"),
        (("--text", "web.jsonl:2", "--text", "quiz.txt", "--out", "a.jsonl"), "has no weight"),
        (("--text", "none.jsonl", "--out", "a.jsonl"), "there is no file none.jsonl"),
        (("--text", "web.jsonl", "--out", "a.txt"), "must end in .jsonl"),
        (("--text", "web.jsonl", "--out", "a.jsonl", "--filters", "c5"), "c4"),
        (("--text", "empty.jsonl", "--out", "a.jsonl"), "no document in empty.jsonl"),
        (("--text", "bad.jsonl", "--out", "a.jsonl"), "bad.jsonl:2: "),
        (
            ("--text", "web.jsonl:1", "--text", "./web.jsonl:2", "--out", "a.jsonl", "--count", 5),
            "names a file twice",
        ),
        (("--text", "web.jsonl", "--out", "./web.jsonl"), "would be lost"),
        (
            ("--text", "talks.json", "--held-out", "web.jsonl", "--out", "web.jsonl"),
            "would be lost",
        ),
    ],
)
def test_what_cannot_be_done(folder, arguments, message):
    (folder / "empty.jsonl").write_text("")
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"text": 3}')
    result = run_command("data", *arguments)
    assert result.exit_code != 0 and message in " ".join(result.output.split())
    assert not (folder / "a.jsonl").exists()
    assert len(written(folder / "web.jsonl")) == len(PAGES)


def test_half_a_character_is_refused_by_its_line(folder):
    (folder / "half.jsonl").write_text('{"text": "a"}\n{"text": "a \\ud83d b"}')  # JSON, no UTF-8
    ran = run_command("data", "--text", "half.jsonl", "--out", "clean.jsonl", "--unrepaired")
    assert ran.exit_code == 1 and "half.jsonl:2:" in ran.output and "not valid text" in ran.output
    assert not (folder / "clean.jsonl").exists()


def test_weights_of_files(folder):
    assert files_and_weights([Path("a.txt"), Path("b.txt")])[1] is None
    paths, weights = files_and_weights([Path("a.txt:0.7"), Path("b:2.txt:3")])
    assert paths == [Path("a.txt"), Path("b:2.txt")] and weights == [0.7, 3.0]
    (folder / "odd:3").write_text("")
    assert files_and_weights([Path("odd:3")]) == ([Path("odd:3")], None)
    with pytest.raises(OptionError, match="above 0"):
        files_and_weights([Path("a.txt:0")])


def test_pretraining_reads_files_in_their_shares(folder):
    (folder / "a.txt").write_text("ab" * 300)
    (folder / "b.txt").write_text("c" * 900)
    arguments = (
        *("pretrain", "--text", "a.txt:0.8", "--text", "b.txt:0.2", "--tokenizer", "bytes"),
        *("--out", "base", "--n-layer", 1, "--n-head", 2, "--n-embd", 16, "--window", 16),
        *("--batch-size", 2, "--report-every", 2),
    )
    shown = run(*arguments, "--tokens", 64)
    # 90% of the 601 and of the 901 ids are learned from.
    assert f"a.txt: 80.0% of the tokens, read {0.8 * 64 / 540:.2f} times" in shown
    assert f"b.txt: 20.0% of the tokens, read {0.2 * 64 / 810:.2f} times" in shown
    assert "on held-out text" in shown
    assert "Going on after step 2" in run(*arguments, "--tokens", 96)
    refused = run_command(*arguments[:2], "a.txt:0.9", *arguments[3:], "--tokens", 96)
    assert refused.exit_code == 1 and "other settings (text)" in refused.output

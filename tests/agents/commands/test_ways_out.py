"""Messages say what a person can do where they stand."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from command_line import run_command

from agents.jobs.other_commands import kind_of
from agents.runs.checkpoints import Checkpoints
from policies import TextClassifier, TransformerConfig, TransformerPolicy, load_policy
from textenv.errors import CheckpointError
from textenv.tokenizers import BytesTokenizer

FILES = {
    "chat.jsonl": [{"prompt": "a", "response": "b"}] * 3,
    "pairs.jsonl": [{"prompt": f"a{n}", "chosen": "b", "rejected": "c"} for n in range(9)],
    "labels.jsonl": [{"text": "a", "label": "yes"}],
    "ranked.jsonl": [{"prompt": "a", "answers": ["b", "c"], "ranks": [1, 2]}] * 2,
    "other.jsonl": [{"x": 1}],
}
PRETRAIN = "--n-layer 1 --n-head 2 --n-embd 16 --window 16 --tokenizer characters --tokens 320"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    policy = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 16), tokenizer=BytesTokenizer())
    policy.save("sft")
    for name, records in FILES.items():
        Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    Path("book.txt").write_text("the cat sat on the mat. " * 40)
    Path("p.txt").write_text("".join(f"prompt {n}\n" for n in range(9)))
    Path("my.py").write_text("def reward(episodes):\n    return [0.0] * len(episodes)\n")
    Path("short.py").write_text("def reward(episodes):\n    return [0.0]\n")
    return tmp_path


TRAIN = "train --policy sft --prompts p.txt --tokens 64 --rows 4 --max-new-tokens 4"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sft --policy sfft --examples chat.jsonl --out o", "did you mean {here}/sft?"),
        ("sft --policy sfft --examples chat.jsonl --out o", "of the hub as owner/name"),
        ("agreement ranked.jsonl", "OptionError: agreement is between labellers, and all of"),
        ("pretrain --text bok.txt --out o", "no file bok.txt to read text from; did you mean book"),
        ("pretrain --text sft --out o", "no file sft to read text from; that is a folder"),
        (f"{TRAIN} --reward mi.py:reward", "did you mean {here}/my.py?"),
        (f"{TRAIN} --reward mi.py:reward", "It is named by --reward."),
        (f"{TRAIN} --reward short.py:reward", "RewardCountError"),
        (
            "reward-model --policy sft --preferences chat.jsonl --out o",
            "chat.jsonl seems to hold examples of answers, for textenv sft (--examples).",
        ),
        (
            "sft --policy sft --examples book.txt --out o",
            "book.txt seems to hold text, for textenv pretrain (--text).",
        ),
        ("pretrain --text book.txt --out o --n-head 4 --n-embd 30", "take --n-embd 28 or 32"),
        ("pretrain --text book.txt --out o --n-head 4 --n-embd 2", "take --n-embd 4, or"),
    ],
)
def test_a_mistake_and_its_way_out(folder, line, said):
    result = run_command(*line.split())
    assert result.exit_code in (1, 2), result.output
    assert said.format(here=folder) in result.output


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chat.jsonl", "examples"),
        ("pairs.jsonl", "preferences"),
        ("ranked.jsonl", "preferences"),
        ("labels.jsonl", "texts"),
        ("book.txt", "text"),
        ("other.jsonl", None),
        ("nowhere.jsonl", None),
    ],
)
def test_what_a_file_is_for(name, kind):
    assert kind_of(Path(name)) == kind


def test_a_pretraining_that_was_stopped_is_recognised(monkeypatch):
    assert run_command("pretrain", "--text", "book.txt", *PRETRAIN.split(), "--out", "o")
    for name in ("policy.json", "policy.safetensors"):
        (Path("o") / name).unlink()
    with pytest.raises(CheckpointError, match=r"has not ended.*o/checkpoint/policy") as caught:
        load_policy("o")
    assert "its command goes on with it" in str(caught.value)
    Checkpoints("o/checkpoint").remove()
    with pytest.raises(CheckpointError, match="was begun there and has not ended"):
        load_policy("o")


def test_a_pretraining_that_has_ended_says_so():
    lines = ["pretrain", "--text", "book.txt", *PRETRAIN.split(), "--out", "o"]
    assert run_command(*lines).exit_code == 0
    again = run_command(*lines)
    assert again.exit_code == 0 and "It had ended: --tokens above 320 goes on" in again.output
    assert "0/320" not in again.output and "Saved every" not in again.output


def test_a_signal_before_the_first_step_says_how_to_go_on(monkeypatch):
    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("agents.jobs.pretrain._vocabulary", stopped)
    result = run_command("pretrain", "--text", "book.txt", "--out", "o")
    assert result.exit_code == 143
    assert "Stopped by SIGTERM.\nThe same command goes on with what was saved" in result.output


def test_a_run_that_is_resumed_twice_is_refused_before_the_work(folder):
    line = f"{TRAIN} --reward my.py:reward --eval-answers 4".split()
    assert run_command(*line).exit_code == 0
    (run,) = Path("runs").iterdir()
    with Checkpoints(run / "checkpoint").owned():
        result = run_command("train", "--resume", str(run), "--tokens", "128")
    assert result.exit_code == 1
    assert "another process is writing" in result.output and "Answers" not in result.output


@pytest.mark.skipif(os.name == "nt", reason="rights are another thing there")
def test_weights_may_be_read_by_those_who_may_read_other_files():
    before = os.umask(0o027)
    try:
        policy = load_policy("sft")
        policy.save("shared")
        TextClassifier(policy, ["a", "b"]).save("shared/classifier")
    finally:
        os.umask(before)
    files = [path for path in Path("shared").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
    assert {".safetensors", ".json"} <= {path.suffix for path in files}

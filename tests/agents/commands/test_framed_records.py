"""Conversations through every command, in a model's own chat template and in ours."""

import json

import pytest
import torch
from command_line import run_command
from published import publish
from published_forms import talk

from agents.feedback import read_rankings
from policies import RewardModel, load_policy
from textenv.frames import ChatTemplate, ModelTemplate

pytest.importorskip("peft")
torch.set_num_threads(1)
MINE = """
def odd(prompt, answers):
    assert prompt.startswith("User: Say ") or prompt.startswith("Say "), prompt
    return [sum(answer.encode()) % 101 for answer in answers]
"""
SMALL = ("--n-layer", 1, "--n-head", 2, "--n-embd", 16, "--tokenizer", "bytes")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(MINE)
    talks = [{"messages": talk(f"Say {n}.", f"{n}", "Again.", f"{n}")} for n in range(8)]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)))
    pairs = [
        {"chosen": talk(f"Say {n}.", f"{n}"), "rejected": talk(f"Say {n}.", "No.")}
        for n in range(8)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return tmp_path


def run(*arguments):
    result = run_command(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("published", [True, False], ids=["its own template", "ours"])
def test_every_stage_reads_conversations(folder, published):
    if published:
        publish(folder / "base")
        kind = ModelTemplate
    else:
        (folder / "book.txt").write_text("It says 1. " * 60)
        run(
            *("pretrain", "--text", "book.txt", "--out", "base", *SMALL, "--window", 100),
            *("--tokens", 200, "--batch-size", 2),
        )
        kind = ChatTemplate
    run("sft", "--policy", "base", "--examples", "talks.jsonl", "--out", "sft", "--epochs", 1)
    run(
        *("preferences", "--policy", "sft", "--prompts", "talks.jsonl", "--labeller", "my.py:odd"),
        *("--out", "ranked.jsonl", "--max-new-tokens", 4, "--answers-per-prompt", 2),
    )
    for ranking in read_rankings("ranked.jsonl"):
        assert [message["role"] for message in ranking.messages] == ["user", "assistant", "user"]
    more = ("--preferences", "ranked.jsonl", "--preferences", "pairs.json")
    run("reward-model", "--policy", "sft", *more, "--reference", "talks.jsonl", "--out", "rm")
    assert isinstance(RewardModel.load("rm").frame.template, kind)
    run("dpo", "--policy", "sft", *more, "--out", "dpo")
    run(
        *("train", "--policy", "sft", "--reward-model", "rm", "--prompts", "talks.jsonl"),
        *("--frame", "chat", "--tokens", 32, "--rows", 4, "--max-new-tokens", 4),
        *("--eval-answers", 4),
    )


def test_texts_go_through_a_template_where_it_is_named(folder):
    publish(folder / "base")
    lines = [json.dumps({"prompt": f"Say {n}.", "response": f"{n}"}) for n in range(8)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    shown = {}
    for name, more in (("plain", ()), ("framed", ("--frame", "chat"))):
        run(
            *("preferences", "--policy", "base", "--prompts", "texts.jsonl", *more),
            *("--labeller", "my.py:odd", "--out", f"{name}.jsonl", "--max-new-tokens", 4),
        )
        shown[name] = read_rankings(f"{name}.jsonl")[0].asked
        run(
            *("sft", "--policy", "base", "--examples", "texts.jsonl", "--out", name, *more),
            *("--epochs", 1),
        )
    assert shown["plain"] == "Say 0." and list(shown["framed"]) == talk("Say 0.")
    weights = [load_policy(name).state_dict() for name in ("plain", "framed")]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_bad_conversations_are_named_by_file_and_line(folder):
    publish(folder / "base")
    (folder / "bad.jsonl").write_text(json.dumps({"messages": talk("a")}) + "\n{")
    result = run_command("sft", "--policy", "base", "--examples", "bad.jsonl", "--out", "out")
    assert result.exit_code == 1
    assert "bad.jsonl:1: the record has no answer" in result.output
    assert "bad.jsonl:2: not JSON" in result.output

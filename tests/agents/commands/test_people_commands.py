"""People at the terminal: demonstrations, and what they say of answers in a chat."""

import json
from pathlib import Path

import pytest
import torch
from command_line import run_command

from agents.feedback import read_rankings
from agents.feedback.from_people.chat_log import ChatLog
from agents.supervised import read_examples
from policies import TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "my.txt").write_text("One?\nTwo?\nThree?\n")
    shape = TransformerConfig(257, 128, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer()).save(tmp_path / "policy")


def demonstrate(typed, prompts="my.txt"):
    command = ("demonstrate", "--prompts", prompts, "--out", "made/d.jsonl")
    return run_command(*command, typed=typed)


def test_answers_are_kept_one_by_one():
    stopped = demonstrate("First line.\nSecond.\n\n\nq\n")  # the second question is skipped
    assert stopped.exit_code == 0 and "goes on from here" in stopped.output
    (example,) = read_examples("made/d.jsonl")
    assert example.pieces[-1] == (" First line.\nSecond.", True)
    again = demonstrate("Two.\n\nThree.\n")  # the input ends in an answer
    assert again.exit_code == 0 and "goes on" not in again.output
    texts = [e.pieces[-1][0] for e in read_examples("made/d.jsonl")]
    assert texts == [" First line.\nSecond.", " Two.", " Three."]
    assert "1 of 2" in again.output
    assert "Prompt" not in demonstrate("").output  # nothing is left


def test_conversations_are_continued():
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    record = {"prompt": [*said, {"role": "user", "content": "And?"}]}
    Path("talk.jsonl").write_text(json.dumps(record))
    assert demonstrate("Well.\n\n", "talk.jsonl").exit_code == 0
    (line,) = Path("made/d.jsonl").read_text().splitlines()
    assert [message["content"] for message in json.loads(line)["messages"]] == [
        *("Hi", "Yo", "And?", "Well.")
    ]


def chat(*arguments, typed):
    command = ("chat", "policy", "--max-new-tokens", "8", *arguments)
    return run_command(*command, typed=typed)


def test_what_is_said_of_answers_becomes_training_data():
    typed = "/good\nHello\n/good\nAnd?\n/fix Better so.\nSo?\n/fix\n/bad\n/help\n"
    result = chat("--dialogue", "--log", "log", "--system", "Be kind.", typed=typed)
    assert result.exit_code == 0, result.output
    assert result.output.count("Noted.") == 3
    for part in ("There is no answer yet.", "Write the better answer behind", "/fix    and what"):
        assert part in result.output
    (ranking,) = read_rankings("log/rankings.jsonl")
    assert ranking.answers[0] == "Better so." and ranking.ranks == (1, 2)
    assert (
        ranking.messages[0]["content"] == "Be kind." and ranking.messages[-1]["content"] == "And?"
    )
    liked, corrected = read_examples("log/examples.jsonl")
    assert corrected.pieces[-1] == (" Better so.", True)
    assert liked.pieces[:2] == corrected.pieces[:2]
    labels = [json.loads(line) for line in Path("log/labels.jsonl").read_text().splitlines()]
    assert [label["label"] for label in labels] == [True, False, False]
    # The conversation went on from the correction.
    assert labels[2]["prompt"][-2]["content"] == "Better so."


def test_without_a_log_there_are_no_such_commands():
    result = chat("--dialogue", typed="/good\n/help\n")
    assert "Noted." not in result.output and "/fix" not in result.output
    plain = chat("--plain", "--log", "log", typed="")
    assert plain.exit_code == 2 and "--log keeps conversations" in plain.output


def test_a_log_is_added_to(tmp_path):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    for _ in range(2):
        ChatLog(tmp_path / "log").like(messages)
    assert len(read_examples(tmp_path / "log" / "examples.jsonl")) == 2

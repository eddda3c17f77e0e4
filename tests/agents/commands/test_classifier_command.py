"""`textenv classifier`, and its folder as reward, judge and safety classifier of other commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command

from policies import TextClassifier, TransformerConfig, TransformerPolicy
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)
GOOD, BAD = "好棒喜欢", "坏差讨厌"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shape = TransformerConfig(257, 48, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=1).save("policy")
    rng = np.random.default_rng(0)
    records = [
        {"text": "".join(rng.choice(list(letters), 5)), "label": label}
        for letters, label in ((GOOD, "fine"), (BAD, "toxic"))
        for _ in range(40)
    ]
    Path("texts.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path


def learn(*options):
    line = ["classifier", "--policy", "policy", "--texts", "texts.jsonl", "--out", "made"]
    return run_command(*line, "--learning-rate", "0.02", "--batch-size", "8", *options)


def evaluate(*options):
    Path("prompts.txt").write_text("a\nb\nc\n")
    line = ["eval", "policy", "--prompts", "prompts.txt", "--max-new-tokens", "6"]
    return run_command(*line, "--json", "out.json", *options)


def test_learned_and_used_by_other_commands(folder):
    result = learn("--held-out", "0.2")
    assert result.exit_code == 0, result.output
    assert "Accuracy on 16 held-out texts: " in result.output and "precision" in result.output
    model = TextClassifier.load("made")
    assert model.predict(["好好棒", "讨厌坏"]) == ["fine", "toxic"]

    talk = ["chat", "policy", "--plain", "--refuse-above", "0.5", "--classifier", "made"]
    assert "rather not" in run_command(*talk, typed="讨厌坏差讨厌\n").output
    assert run_command(*talk[:3], "--classifier", "made", typed="").exit_code == 2

    reward = ["--reward-model", "made", "--label", "fine"]
    measured = evaluate(*reward, "--toxicity", "--classifier", "made")
    assert measured.exit_code == 0, measured.output
    (row,) = json.loads(Path("out.json").read_text())
    assert 0 < row["toxicity"]["mean"] < 1 and row["reward"]["low"] < row["reward"]["high"]

    trained = ["train", "--prompts", "prompts.txt", "--policy", "policy", *reward, "--rows", "8"]
    trained += ["--tokens", "48", "--max-new-tokens", "6", "--eval-answers", "4"]
    done = run_command(*trained)
    assert done.exit_code == 0, done.output

    for options, why in (
        (["--reward-model", "made", "--label", "nice"], "fine, toxic"),
        (["--reward-model", "made"], "fine, toxic"),
        ([*reward, "--reward-model", "made"], "no member"),
        ([*reward, "--toxicity", "--classifier", "made", "--toxic-label", "x"], "fine, toxic"),
        ([*reward, "--classifier", "made"], "--toxicity"),
    ):
        refused = evaluate(*options)
        assert refused.exit_code and why in " ".join(refused.output.split())


def test_a_regression(folder):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ab"), 6)) for _ in range(60)]
    records = [{"text": text, "label": text.count("a") / 6} for text in texts]
    Path("texts.jsonl").write_text("\n".join(map(json.dumps, records)))
    result = learn("--lm-weight", "0")
    assert result.exit_code == 0 and "Correlation on" in result.output, result.output
    assert TextClassifier.load("made").labels == ()
    assert evaluate("--reward-model", "made").exit_code == 0


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('{"text": "a", "label": "x"}\n{"text": 3, "label": "y"}', "texts.jsonl:2"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}', "one label"),
    ],
)
def test_texts_that_teach_nothing(folder, lines, why):
    Path("texts.jsonl").write_text(lines)
    result = learn()
    assert result.exit_code == 1 and why in result.output and not Path("made").exists()

"""Runs that are resumed: from another folder, from an older checkpoint, with more tokens."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from command_line import run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer

REWARD = """
def vowels(episodes):
    return [sum(c in "aeiou" for c in e.text) for e in episodes]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a user has prompts, a reward and a policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(REWARD)
    (tmp_path / "my.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"prompt {n}"}) for n in range(50))
    )
    tokenizer = load_tokenizer("bytes")
    config = TransformerConfig(tokenizer.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=tokenizer).save(tmp_path / "policy")
    return tmp_path


def train(*arguments):
    small = ["--rows", "4", "--max-new-tokens", "8", "--eval-answers", "4", "--kl-coef", "0"]
    own = ["--prompts", "my.jsonl", "--reward", "my.py:vowels", "--policy", "policy"]
    result = run_command("train", *own, *small, *arguments)
    assert result.exit_code == 0, result.output
    (made,) = Path("runs").iterdir()
    return made.resolve()


def resume(*arguments):
    result = run_command("train", "--resume", *arguments)
    assert result.exit_code == 0, result.output


def test_paths_are_kept_absolute_and_found_from_elsewhere(folder, monkeypatch, tmp_path_factory):
    made = train("--tokens", "64")
    kept = json.loads((made / "config.json").read_text())
    assert kept["prompts"] == str(folder / "my.jsonl")
    assert kept["reward"] == f"{folder / 'my.py'}:vowels"
    assert kept["policy"] == str(folder / "policy")
    assert kept["run_folder"] == str(folder / "runs")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    resume(str(made), "--tokens", "128")


def test_nothing_is_written_twice_from_an_older_checkpoint(folder):
    made = train("--tokens", "96", "--samples-every", "1", "--eval-every", "1")
    shutil.copytree(made / "checkpoint", folder / "older")
    for _ in range(2):  # the second time its updates are done again
        shutil.rmtree(made / "checkpoint")
        shutil.copytree(folder / "older", made / "checkpoint")
        resume(str(made), "--tokens", "192")
    for name, column in (("metrics.csv", "update"), ("evaluations.csv", "step")):
        rows = list(csv.DictReader((made / name).read_text().splitlines()))
        numbers = [int(float(row[column])) for row in rows]
        assert numbers == sorted(set(numbers)) and len(numbers) >= 6, (name, numbers)
    lines = (made / "samples.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert [json.loads(line)["update"] for line in lines].count(0) == 4
    events = EventAccumulator(str(made / "tensorboard")).Reload()
    steps = [point.step for point in events.Scalars("policy/entropy")]
    assert steps == sorted(set(steps))


def pretrain(text, out, tokens):
    sizes = ["--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--window", "8"]
    sizes += ["--batch-size", "2", "--report-every", "5", "--tokenizer", "characters"]
    return run_command("pretrain", "--text", text, "--out", out, "--tokens", str(tokens), *sizes)


def test_the_same_folder_spelt_otherwise_and_more_tokens(folder, monkeypatch):
    (folder / "text.txt").write_text("a cat and a dog, " * 50)
    assert pretrain("text.txt", "out", 160).exit_code == 0
    (folder / "below").mkdir()
    (folder / "link").symlink_to(folder / "out")
    for text, out, tokens, steps in [
        ("./text.txt", "below/../out/", 160, 10),
        (str(folder / "text.txt"), "link", 240, 15),
    ]:
        again = pretrain(text, out, tokens)
        assert again.exit_code == 0, again.output
        assert f"of {steps}." in again.output
    assert "after step 10 of 15" in again.output
    monkeypatch.chdir(folder / "below")
    elsewhere = pretrain("../text.txt", "../out", 320)
    assert "after step 15 of 20" in elsewhere.output
    (folder / "other.txt").write_text("something else, " * 50)
    refused = pretrain("../other.txt", "../out", 320)
    assert refused.exit_code == 1 and "other settings (text)" in refused.output


def test_a_folder_of_version_0_1_goes_on(folder):
    """It kept paths as they were typed."""
    (folder / "text.txt").write_text("a cat and a dog, " * 50)
    assert pretrain("text.txt", "out", 160).exit_code == 0
    kept = folder / "out" / "pretraining.json"
    described = json.loads(kept.read_text())
    described |= {"out": "out", "text": "[PosixPath('text.txt')]"}
    kept.write_text(json.dumps(described))
    assert "Going on after step 10" in pretrain("text.txt", "out", 160).output

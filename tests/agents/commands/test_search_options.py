"""`textenv eval --search`: rows of answers that were searched for."""

import json

import pytest
import torch
from command_line import run_command

from policies import TransformerConfig, TransformerPolicy, load_policy
from textenv import load_tokenizer

TOKENIZER = load_tokenizer("bytes")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(
        "def es(episodes):\n    return [e.text.count('e') for e in episodes]\n"
    )
    (tmp_path / "my.txt").write_text("one\ntwo\nthree\n")
    config = TransformerConfig(TOKENIZER.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(config, tokenizer=TOKENIZER, seed=0).save(tmp_path / "policy")
    return tmp_path


def run(*arguments):
    return run_command(
        *("eval", "policy", "--prompts", "my.txt", "--reward", "my.py:es", "--answers", "3"),
        *("--max-new-tokens", "3", "--json", "out.json", *arguments),
    )


def test_a_row_for_each_search(folder):
    wanted = ["sample", "mcts", "best-first", "best-of-n"]
    flags = [flag for name in wanted for flag in ("--search", name)]
    result = run(*flags, "--expansions", "20", "--moves", "300")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads((folder / "out.json").read_text())}
    assert list(rows) == [f"policy, {name}" for name in wanted]
    best_of_n = rows["policy, best-of-n"]["reward"]["mean"]
    assert best_of_n >= rows["policy, sample"]["reward"]["mean"]
    assert rows["policy, mcts"]["tokens_per_answer"] <= 3


def test_by_value_asks_for_a_head_that_was_trained(folder):
    given = "--search", "mcts", "--by-value", "--expansions", "4"
    result = run(*given)
    assert result.exit_code == 2
    assert "value head of policy was never trained" in result.output
    policy = load_policy("policy")
    with torch.no_grad():
        policy.value_head.weight.fill_(0.1)
    policy.save("policy")
    result = run(*given)
    assert result.exit_code == 0, result.output


def test_options_that_do_not_go_together(folder):
    result = run("--by-value")
    assert result.exit_code == 2
    assert "--search" in result.output
    result = run("--search", "minimax")
    assert result.exit_code == 2
    assert "mcts" in result.output
    (folder / "ways.txt").write_text("{prompt}\nSay: {prompt}\n")
    result = run("--search", "mcts", "--wordings", "ways.txt")
    assert result.exit_code == 2
    assert "--wordings" in result.output

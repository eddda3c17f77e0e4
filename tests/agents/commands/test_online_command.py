"""`textenv online`: rounds that can be interrupted anywhere and give the same."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command

from agents.feedback import read_rankings
from policies import RewardModel, TransformerConfig, TransformerPolicy, load_policy
from policies.token_reward import TokenReward
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)

MINE = """
from pathlib import Path

def even(prompt, answers):
    asked = Path("asked")
    asked.write_text(asked.read_text() + "." if asked.exists() else ".")
    if Path("stop").exists() and len(asked.read_text()) == int(Path("stop").read_text()):
        raise KeyboardInterrupt
    return [sum(byte % 2 == 0 for byte in answer.encode()) for answer in answers]
"""
SIZES = ("--rounds", "2", "--prompts-per-round", "6", "--tokens-per-round", "400", "--rows", "16")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(MINE)
    (tmp_path / "my.txt").write_text("\n".join(f"p{n} " for n in range(24)))
    shape = TransformerConfig(257, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer()).save(tmp_path / "policy")
    return tmp_path


def online(*arguments, out="run", labeller="my.py:even", typed=""):
    return run_command(
        "online",
        *("--policy", "policy", "--prompts", "my.txt", "--labeller", labeller, "--out", out),
        *("--max-new-tokens", "6", "--held-out", "8", *SIZES, *arguments),
        typed=typed,
    )


def weights(folder):
    return {name: value.numpy() for name, value in load_policy(folder).state_dict().items()}


def test_rounds_rank_fit_and_go_on_and_all_is_kept():
    result = online("--keep", "1")
    assert result.exit_code == 0, result.output
    assert len(read_rankings("run/rankings.jsonl")) == 12
    assert sorted(path.name for path in Path("run").iterdir()) == [
        "checkpoint",
        "config.json",
        "journal.jsonl",
        "policy",
        "rankings.jsonl",
        "reward_model",
    ]
    for part in ("Round 1: ", "Round 2: ", "before it learns from them", "On 8 held-out prompts"):
        assert part in result.output
    assert isinstance(RewardModel.load("run/reward_model"), RewardModel)
    trained, begun = weights("run/policy"), weights("policy")
    assert any((trained[name] != begun[name]).any() for name in begun)


@pytest.mark.parametrize("more", [(), ("--segment-tokens", "2")])
def test_an_interrupted_run_goes_on_and_gives_the_same(more):
    assert online(*more, out="whole").exit_code == 0
    Path("asked").unlink()
    Path("stop").write_text("10")  # the first is a trial, six are round 1
    stopped = online(*more)
    assert stopped.exit_code == 130
    assert "goes on with round 2; rankings are kept" in stopped.output
    assert len(read_rankings("run/journal.jsonl")) == 8
    assert json.loads(Path("run/checkpoint/state.json").read_text())["round"] == 1
    Path("stop").unlink()
    again = online(*more)
    assert again.exit_code == 0, again.output
    assert "1 rounds are done." in again.output and "Round 1: " not in again.output
    asked = len(Path("asked").read_text())
    assert asked == 10 + 1 + 4 + 8  # a trial, what was left to rank, the comparison at the end
    assert Path("run/rankings.jsonl").read_bytes() == Path("whole/rankings.jsonl").read_bytes()
    ours, theirs = weights("run/policy"), weights("whole/policy")
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_segments_train_a_reward_of_tokens():
    result = online("--segment-tokens", "2", "--answers-per-prompt", "3")
    assert result.exit_code == 0, result.output
    rankings = read_rankings("run/rankings.jsonl")
    assert all(len(r.answers) == 3 for r in rankings)
    assert all(len(answer.encode()) <= 6 for r in rankings for answer in r.answers)
    beginnings = {re.match(r"p\d+ ", r.prompt).group() for r in rankings}
    assert any(r.prompt not in beginnings for r in rankings)
    assert isinstance(TokenReward.load("run/reward_model"), TokenReward)


def test_a_person_ranks_and_may_stop():
    stopped = online(labeller="terminal", typed="1 2 3 4\n1=2=3=4\nq\n")
    assert stopped.exit_code == 130, stopped.output
    assert [r.ranks for r in read_rankings("run/journal.jsonl")] == [(1, 2, 3, 4), (1, 1, 1, 1)]
    result = online(labeller="terminal", typed="4 3 2 1\n" * 10)
    assert result.exit_code == 0, result.output
    assert len(read_rankings("run/rankings.jsonl")) == 12


def test_conversations_are_answered_and_ranked_through_a_frame(folder):
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    records = [{"prompt": [*said, {"role": "user", "content": f"q{n}"}]} for n in range(12)]
    Path("my.jsonl").write_text("\n".join(map(json.dumps, records)))
    shape = TransformerConfig(257, 96, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer()).save(folder / "policy")
    result = online("--prompts", "my.jsonl", "--held-out", "2")
    assert result.exit_code == 0, result.output
    rankings = read_rankings("run/rankings.jsonl")
    assert len(rankings) == 12 and all(len(ranking.messages) == 3 for ranking in rankings)
    assert RewardModel.load("run/reward_model").frame is not None
    assert load_policy("run/policy").chat_template is not None
    cut = online("--prompts", "my.jsonl", "--segment-tokens", "2", out="other")
    assert cut.exit_code == 2 and "--segment-tokens cuts answers in two" in cut.output


def test_more_rounds_are_a_longer_run():
    assert online("--rounds", "1").exit_code == 0
    assert online("--rounds", "3").exit_code == 0
    assert len(read_rankings("run/rankings.jsonl")) == 18
    assert json.loads(Path("run/checkpoint/state.json").read_text())["round"] == 3
    done = online("--rounds", "3")
    assert done.exit_code == 0 and "3 rounds are done" in done.output


def test_other_options_are_another_run():
    assert online("--rounds", "1").exit_code == 0
    result = online("--kl-coef", "0.3", "--temperature", "0.5")
    assert result.exit_code == 2
    assert "was begun with --temperature 1.0, --kl-coef 0.05" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labeller", "my.py:none"), "none"),
        (("--prompts", "none.txt"), "none.txt"),
        (("--max-new-tokens", "40"), "no room for a prompt"),
        (("--out", "my.txt"), "is a file"),
    ],
)
def test_mistakes_give_one_message(arguments, message):
    result = online(*arguments)
    assert result.exit_code in (1, 2) and "Traceback" not in result.output
    assert message in result.output

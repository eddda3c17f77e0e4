"""`textenv preferences` and `textenv reward-model`, one after the other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command

from agents.feedback import read_rankings
from agents.jobs import preferences
from policies import (
    RewardModel,
    RewardModelEnsemble,
    TransformerConfig,
    TransformerPolicy,
    load_reward_model,
)
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)

MINE = """
def digits(prompt, answers):
    return [sum(character.isdigit() for character in answer) for answer in answers]

def broken(prompt, answers):
    raise ZeroDivisionError("oh")

def endless(rng):
    return f"{rng.integers(1000)}:"

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(MINE)
    (tmp_path / "my.txt").write_text("\n".join(f"p{n} " for n in range(70)))
    shape = TransformerConfig(257, 32, n_layer=1, n_head=2, n_embd=16)
    TransformerPolicy(shape, tokenizer=BytesTokenizer()).save(tmp_path / "policy")
    return tmp_path


def run(command: str, *arguments: str, **options):
    return run_command(command, "--policy", "policy", *arguments, **options)


def ask(*arguments: str, labeller="my.py:digits", prompts="my.txt", **options):
    return run(
        "preferences",
        *("--prompts", prompts, "--labeller", labeller, "--out", "made/p.jsonl"),
        *("--max-new-tokens", "4", *arguments),
        **options,
    )


def test_answers_are_sampled_and_ranked():
    result = ask("--answers-per-prompt", "5")
    assert result.exit_code == 0, result.output
    rankings = read_rankings("made/p.jsonl")
    assert [ranking.prompt for ranking in rankings] == [f"p{n} " for n in range(70)]
    for ranking in rankings:
        digits = [sum(c.isdigit() for c in answer) for answer in ranking.answers]
        assert ranking.ranks == tuple(1 + sum(d > e for d in digits) for e in digits)
        assert len(ranking.answers) == 5
    assert "made/p.jsonl" in result.output


def test_a_stopped_run_goes_on_and_gives_the_same():
    assert ask().exit_code == 0
    path = Path("made/p.jsonl")
    whole = path.read_text(encoding="utf-8")
    path.write_text("".join(whole.splitlines(keepends=True)[:64]), encoding="utf-8")
    assert ask().exit_code == 0
    assert path.read_text(encoding="utf-8") == whole
    assert ask().exit_code == 0  # nothing is left to do
    assert path.read_text(encoding="utf-8") == whole


def test_a_labeller_is_tried_before_answers_are_sampled(monkeypatch):
    monkeypatch.setattr("agents.jobs.preferences.sample_answers", lambda *given, **more: 1 / 0)
    result = ask(labeller="my.py:broken")
    assert result.exit_code == 1
    assert 'in my.py, line 6: raise ZeroDivisionError("oh")' in " ".join(result.output.split())


def test_prompts_that_are_too_long(folder):
    (folder / "long.txt").write_text("short\n" + "x" * 29 + "\n" + "y" * 30)
    result = ask(prompts="long.txt")
    assert result.exit_code == 1
    assert "long.txt:3: " in result.output and "--long-prompts drop" in result.output
    assert "long.txt:2: " not in result.output  # the last id of an answer is not read
    assert ask("--long-prompts", "cut", prompts="long.txt").exit_code == 0
    read = [ranking.prompt for ranking in read_rankings("made/p.jsonl")]
    assert read == ["short", "x" * 29, "y" * 29]


def test_ctrl_c_says_how_many_are_ranked(monkeypatch):
    ranked = preferences.rank

    def stopped(*arguments):
        if Path("made/p.jsonl").exists():
            raise KeyboardInterrupt
        return ranked(*arguments)

    monkeypatch.setattr(preferences, "rank", stopped)
    result = ask()
    assert result.exit_code == 130
    assert "Stopped.\n64 prompts are ranked. The same command goes on." in result.output
    assert len(read_rankings("made/p.jsonl")) == 64


def test_a_limit_and_prompts_from_a_function():
    assert ask("--limit", "3").exit_code == 0
    assert len(read_rankings("made/p.jsonl")) == 3
    assert ask("--limit", "2", prompts="my.py:endless").exit_code == 0
    assert len(read_rankings("made/p.jsonl")) == 5


def test_a_person_ranks_in_the_terminal():
    stopped = ask(labeller="terminal", typed="2 1 3=4\nnonsense\n1 2 3 4\nq\n")
    assert stopped.exit_code == 0, stopped.output
    assert "'nonsense' is not one of the answers 1 to 4" in stopped.output
    assert "goes on from here" in stopped.output
    assert [r.ranks for r in read_rankings("made/p.jsonl")] == [(2, 1, 3, 3), (1, 2, 3, 4)]
    assert ask("--limit", "3", labeller="terminal", typed="4 3 2 1\n").exit_code == 0
    assert [r.prompt for r in read_rankings("made/p.jsonl")] == ["p0 ", "p1 ", "p2 "]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"labeller": "my.py:broken"}, "ZeroDivisionError"),
        ({"labeller": "my.py:number"}, "not a function of a prompt"),
        ({"labeller": "vaders:own"}, "no module 'vaders'"),
        ({"prompts": "none.txt"}, "none.txt"),
    ],
)
def test_mistakes_give_one_message(options, message):
    result = ask(**options)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


# -------------------------------------------------------------------- reward-model


def write_pairs(path, count=120):
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(count):
        good, bad = ("".join(rng.choice(list(letters), 6)) for letters in ("aeio", "bcdf"))
        pairs.append({"prompt": f"p{number} ", "chosen": good, "rejected": bad})
    Path(path).write_text("\n".join(map(json.dumps, pairs)))


def learn(*arguments: str):
    return run("reward-model", "--preferences", "pairs.jsonl", "--out", "model", *arguments)


@pytest.mark.parametrize("loss", ["kwise", "pairwise", "plackett-luce"])
def test_a_reward_model_from_pairs(loss):
    write_pairs("pairs.jsonl")
    result = learn("--loss", loss, "--epochs", "4", "--learning-rate", "3e-3", "--held-out", "0.2")
    assert result.exit_code == 0, result.output
    assert "Accuracy on 24 held-out pairs: 1.000 [1.000, 1.000]" in result.output
    assert "Calibration" in result.output
    model = RewardModel.load("model")
    good, bad = model.score_texts(["p ", "p "], ["aeio", "bcdf"])
    assert good > 0 > bad


def test_an_ensemble_and_its_length():
    write_pairs("pairs.jsonl", 40)
    longer = [{"prompt": f"q{i}", "chosen": "a" * (2 + i), "rejected": "a"} for i in range(20)]
    Path("longer.jsonl").write_text("\n".join(map(json.dumps, longer)))
    options = ["--preferences", "longer.jsonl", "--held-out", "0.2", "--members", "2"]
    result = learn(*options, "--epochs", "4", "--learning-rate", "3e-3", "--remove-length")
    assert result.exit_code == 0, result.output
    assert "Accuracy of the members" in result.output
    assert "before it was removed, 2" in result.output and "labellers" in result.output
    ensemble = load_reward_model("model")
    assert isinstance(ensemble, RewardModelEnsemble) and len(ensemble.models) == 2
    assert all(model.length_slope != 0 for model in ensemble.models)
    each = ensemble.member_scores(["p ", "p "], ["aeio", "bcdf"])
    assert (each[0] != each[1]).all() and (each[:, 0] > each[:, 1]).all()


def test_the_mean_of_demonstrations_is_zero():
    write_pairs("pairs.jsonl", 20)
    records = [
        {"prompt": "p", "response": "aaa"},
        {"instruction": "Say b.", "output": "b"},
    ]
    Path("demonstrations.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert learn("--reference", "demonstrations.jsonl").exit_code == 0
    model = RewardModel.load("model")
    scores = model.score_texts(["p", "User: Say b.\nAssistant:"], ["aaa", " b"])
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert learn().exit_code == 0
    assert RewardModel.load("model").mean.item() != model.mean.item()


def test_several_files(folder):
    write_pairs("pairs.jsonl", 20)
    more = {"prompt": "q", "answers": ["a", "b", "c"], "ranks": [1, 2, 3]}
    Path("more.jsonl").write_text(json.dumps(more))
    result = learn("--preferences", "more.jsonl", "--held-out", "0.9")
    assert result.exit_code == 0, result.output


def test_bad_records_are_reported_before_anything_else():
    write_pairs("pairs.jsonl", 3)
    with Path("pairs.jsonl").open("a") as file:
        file.write('\n{"chosen": "a"}\n{"prompt": "p", "answers": ["a"], "ranks": [1]}\nno\n')
    result = learn()
    assert result.exit_code == 1
    assert all(f"pairs.jsonl:{number}:" in result.output for number in (4, 5, 6))
    assert "Traceback" not in result.output and not Path("model").exists()


def test_too_few_prompts():
    write_pairs("pairs.jsonl", 1)
    result = learn()
    assert result.exit_code == 1
    assert "two prompts are needed" in " ".join(result.output.split())

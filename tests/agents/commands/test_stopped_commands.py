"""Commands that a signal ends, or a kill: the same command goes on, and ends as if nothing was."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from command_line import run_command

from agents.supervised import Fitting
from policies import RewardModel, TextClassifier, TransformerConfig, TransformerPolicy
from textenv.errors import NotSavedError, NotSavedWarning
from textenv.tokenizers import BytesTokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A policy, and one file for each command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    policy = TransformerPolicy(TransformerConfig(257, 32, 1, 2, 16), tokenizer=BytesTokenizer())
    policy.save("base")
    names = [f"{letter}{number}" for letter in "abcdefgh" for number in "123"]
    files = {
        "examples": [{"prompt": f"{name}: ", "response": "xy"} for name in names],
        "pairs": [{"prompt": n, "chosen": f"{n} good", "rejected": "bad"} for n in names],
        "labelled": [{"text": f"{n} text", "label": "yes" if "1" in n else "no"} for n in names],
    }
    for name, records in files.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    Path("text.txt").write_text("the cat sat on the mat. " * 40)
    return tmp_path


SIZES = "--n-layer 1 --n-head 2 --n-embd 16 --window 16 --batch-size 4 --tokens 640"
COMMANDS = {
    "pretrain": f"--text text.txt --tokenizer characters {SIZES} --residual-dropout 0.1",
    "sft": "--policy base --examples examples.jsonl --batch-size 6 --residual-dropout 0.1",
    "reward-model": "--policy base --preferences pairs.jsonl --batch-size 4 --members 2",
    "classifier": "--policy base --texts labelled.jsonl --batch-size 8 --held-out 0.2",
}
CHOOSING = "--choose-by loss --epochs 3"


def run(command: str, out: str, more: str = ""):
    return run_command(command, *COMMANDS[command].split(), *more.split(), "--out", out)


def weights(command: str, out: str) -> dict[str, torch.Tensor]:
    if command == "reward-model":
        models = [RewardModel.load(Path(out) / name) for name in ("member-1", "member-2")]
        return {f"{i}/{k}": v for i, m in enumerate(models) for k, v in m.state_dict().items()}
    made = {"classifier": TextClassifier}.get(command, TransformerPolicy)
    return made.load(out).state_dict()


def signal_at(monkeypatch, number: int, what: signal.Signals, times: int = 1) -> None:
    """Sends a signal to this process within the `number`-th step of any fitting from now on."""
    real, count = Fitting.step, [0]

    def step(self, losses):
        count[0] += 1
        if count[0] == number:
            for _ in range(times):
                os.kill(os.getpid(), what)
        return real(self, losses)

    monkeypatch.setattr(Fitting, "step", step)


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "more", "number"),
    [
        ("pretrain", "", 4),
        ("sft", "", 5),
        ("sft", CHOOSING, 6),
        ("reward-model", "", 8),
        ("classifier", "", 4),
    ],
)
def test_a_signal_saves_at_a_whole_update_and_the_same_command_goes_on(
    folder, monkeypatch, capfd, command, more, number, what
):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    whole = run(command, "whole", more)
    assert whole.exit_code == 0, whole.output
    if command != "pretrain":  # with more --tokens that one goes on once it is done
        assert not Path("whole/checkpoint").exists()
    with monkeypatch.context() as patch:
        signal_at(patch, number, what)
        stopped = run(command, "part", more)
    assert stopped.exit_code == 128 + what, stopped.output
    assert f"Saved after update {number}. The same command goes on" in stopped.output
    assert f"{what.name}: saves after this update" in capfd.readouterr().err
    other = run(command, "part", f"{more} --seed 7")
    assert other.exit_code == 1 and "seed" in other.output
    again = run(command, "part", f"{more} --save-every 2 --keep 3")
    assert again.exit_code == 0, again.output
    assert f"Going on after step {number}" in again.output
    first, second = weights(command, "whole"), weights(command, "part")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [line for line in whole.output.splitlines() if "held-out" in line and "->" in line]
    assert all(line in again.output for line in lines)
    if more == CHOOSING:
        assert Path("whole/epochs.json").read_text() == Path("part/epochs.json").read_text()
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_signal_ends_at_once_with_what_was_saved_before(folder, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, 5, signal.SIGINT, times=2)
        stopped = run("sft", "part", "--save-every 2")
    assert stopped.exit_code == 130
    assert "Saved last after update 4." in stopped.output
    again = run("sft", "part", "--save-every 2")
    assert "Going on after step 4 of" in again.output
    assert run("sft", "whole").exit_code == 0
    first, second = weights("sft", "whole"), weights("sft", "part")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_disk_that_is_full_for_a_while_does_not_end_the_work(folder, monkeypatch):
    """The saves on the way are warnings; the last whole checkpoint stays."""
    real, count = os.fsync, [0]

    def fsync(number):
        count[0] += 1
        if 12 < count[0] < 15:  # two saves
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(NotSavedWarning, match="after update .*No space left on device.*checkpoint"):
        result = run("classifier", "out", "--save-every 1")
    assert result.exit_code == 0, result.output
    assert count[0] > 15
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.warns(NotSavedWarning):
        result = run("classifier", "other")
    assert result.exit_code == 1 and NotSavedError.__name__ in result.output


@pytest.mark.parametrize("given", ["2h", "-1", "m", "0m", "1.5"])
def test_how_often_is_a_number_of_updates_or_minutes(folder, given):
    result = run_command("sft", *COMMANDS["sft"].split(), "--out", "out", f"--save-every={given}")
    assert result.exit_code == 2
    assert f"--save-every is '{given}'" in result.output

"""Commands that a signal ends, or a kill: the same command goes on, and ends as if nothing was."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from command_line import run_command

from agents.learner import Learner
from agents.supervised import Fitting
from agents.trainer import Trainer
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
    "dpo": "--policy base --preferences pairs.jsonl --batch-size 4 --epochs 2",
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
    count = [0]

    def counted(real):
        def step(*arguments, **options):
            count[0] += 1
            if count[0] == number:
                for _ in range(times):
                    os.kill(os.getpid(), what)
            return real(*arguments, **options)

        return step

    monkeypatch.setattr(Fitting, "step", counted(Fitting.step))
    monkeypatch.setattr(Trainer, "learn_from", counted(Trainer.learn_from))


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "more", "number"),
    [
        ("pretrain", "", 4),
        ("sft", "", 5),
        ("sft", CHOOSING, 6),
        ("reward-model", "", 8),
        ("dpo", "", 7),
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("2m", "Saved every 2 minutes in out/checkpoint; the last 2 are kept."),
        ("0.5m", "Saved every 0.5 minutes in"),
        ("3", "Saved every 3 updates in"),
        ("0", "Saved at the beginning and the end in"),
    ],
)
def test_how_often_is_said_at_the_start(folder, given, said):
    result = run("classifier", "out", f"--save-every {given}")
    assert result.exit_code == 0, result.output
    assert said in result.output


@pytest.mark.parametrize("given", ["2h", "-1", "m", "0m", "1.5"])
def test_how_often_is_a_number_of_updates_or_minutes(folder, given):
    result = run_command("sft", *COMMANDS["sft"].split(), "--out", "out", f"--save-every={given}")
    assert result.exit_code == 2
    assert f"--save-every is '{given}'" in result.output


# --- reinforcement learning, online feedback, evaluation, preferences -----------------------------

MINE = """
import os, signal
from pathlib import Path

def vowels(episodes):
    return [sum(c in "aeiou" for c in e.text) for e in episodes]

def counted():
    calls = Path(__file__).with_name("calls")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    at = Path(__file__).with_name("at")
    if at.exists() and len(calls.read_text()) == int(at.read_text()):
        os.kill(os.getpid(), signal.SIGTERM)

def reward(episodes):
    counted()
    return vowels(episodes)

def labels(prompt, answers):
    counted()
    return [sum(byte % 2 == 0 for byte in answer.encode()) for answer in answers]
"""


@pytest.fixture
def mine(folder) -> Path:
    """A reward and a labeller of one's own, which send a signal at the call in the file `at`."""
    Path("my.py").write_text(MINE)
    Path("my.jsonl").write_text("".join(json.dumps({"prompt": f"p {n}"}) + "\n" for n in range(50)))
    return folder


def at_call(number: int | None) -> None:
    Path("calls").unlink(missing_ok=True)
    Path("at").write_text(str(number or 0))


def train(*more: str):
    small = "--tokens 320 --rows 4 --max-new-tokens 8 --eval-answers 4 --eval-every 3"
    given = f"--prompts my.jsonl --reward my.py:reward --policy base {small}"
    return run_command("train", *given.split(), *more)


def untimed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if "seconds" not in k and "_per_" not in k} for row in rows
    ]


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("metrics.csv", "evaluations.csv"):
        assert untimed(one / name) == untimed(other / name)
    assert (one / "samples.jsonl").read_text() == (other / "samples.jsonl").read_text()
    for name in ("learner.safetensors", "learner.json", "policy/policy.safetensors"):
        both = [(run / "checkpoint" / name).read_bytes() for run in (one, other)]
        assert both[0] == both[1], name


def test_a_training_goes_on_bit_for_bit_and_no_row_stands_twice(mine, capfd):
    at_call(None)
    assert train("--run-folder", "whole", "--save-every", "0").exit_code == 0
    (whole,) = Path("whole").iterdir()
    at_call(9)
    stopped = train("--run-folder", "part", "--save-every", "4")
    assert stopped.exit_code == 143, stopped.output
    assert "SIGTERM: saves after this update" in capfd.readouterr().err
    (part,) = Path("part").iterdir()
    assert f"To go on: textenv train --resume {part}" in stopped.output
    rows = len(untimed(part / "metrics.csv"))
    assert f"Saved after update {rows}." in stopped.output and 0 < rows < 10
    at_call(None)
    # As after a kill: rows that were logged after the last save, the last of them half.
    with (part / "metrics.csv").open("a") as file:
        file.write((whole / "metrics.csv").read_text().splitlines()[rows + 1] + "\n77,3.")
    again = run_command("train", "--resume", part, "--keep", "1", "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert [row["update"] for row in untimed(part / "metrics.csv")] == [
        str(number) for number in range(1, 11)
    ]
    assert_same_run(whole, part)
    assert not list(part.glob("checkpoint.*")) and not list(part.rglob("*.part"))


def test_a_training_that_has_saved_nothing_begins_again(mine):
    at_call(None)
    assert train("--run-folder", "whole").exit_code == 0
    (whole,) = Path("whole").iterdir()
    begun = Path("begun")
    begun.mkdir()
    (begun / "config.json").write_bytes((whole / "config.json").read_bytes())
    again = run_command("train", "--resume", begun)
    assert again.exit_code == 0, again.output
    assert "Nothing was saved in begun yet: the run begins again." in again.output
    assert_same_run(whole, begun)
    (begun / "config.json").unlink()
    refused = run_command("train", "--resume", begun)
    assert refused.exit_code == 1
    assert "begun is not the folder of a run that had begun" in refused.output


def test_a_training_whose_end_is_saved_is_not_trained_on(mine):
    """A rule may have ended it before its tokens."""
    at_call(None)
    assert train("--run-folder", "whole", "--stop-beyond-kl", "0").exit_code == 0
    (whole,) = Path("whole").iterdir()
    rows = untimed(whole / "metrics.csv")
    assert 0 < len(rows) < 10
    (whole / "result.json").unlink()
    assert run_command("train", "--resume", whole).exit_code == 0
    assert untimed(whole / "metrics.csv") == rows and (whole / "result.json").exists()


def test_an_evaluation_goes_on_after_its_last_batch(mine):
    line = "base other --prompts my.jsonl --reward my.py:reward --answers 12 --rows 4 --seed 1"
    TransformerPolicy(
        TransformerConfig(257, 32, 1, 2, 16), seed=1, tokenizer=BytesTokenizer()
    ).save("other")
    at_call(None)
    assert run_command("eval", *line.split(), "--json", "whole.json").exit_code == 0
    calls = len(Path("calls").read_text())
    for number in (3, 5):
        at_call(number)
        stopped = run_command("eval", *line.split(), "--json", "part.json")
        assert stopped.exit_code == 143, stopped.output
        assert "Saved after answer" in stopped.output
    Path("base/more.txt").write_text("another file")
    refused = run_command("eval", *line.split(), "--json", "part.json")
    assert refused.exit_code == 1 and "another base" in refused.output.replace(str(mine) + "/", "")
    Path("base/more.txt").unlink()
    at_call(None)
    again = run_command("eval", *line.split(), "--json", "part.json")
    assert again.exit_code == 0, again.output
    assert len(Path("calls").read_text()) < calls
    assert json.loads(Path("part.json").read_text()) == json.loads(Path("whole.json").read_text())
    assert not list(Path().glob("part.json.*"))


def test_online_feedback_goes_on_within_a_round(mine):
    line = "--policy base --prompts my.jsonl --labeller my.py:labels --held-out 8 --rows 4"
    line += " --max-new-tokens 6 --rounds 2 --prompts-per-round 6 --tokens-per-round 96"
    at_call(None)
    assert run_command("online", *line.split(), "--out", "whole").exit_code == 0
    with pytest.MonkeyPatch.context() as patch:
        real, count = Learner.update, [0]

        def update(self, *arguments, **options):
            count[0] += 1
            if count[0] in (2, 6):
                os.kill(os.getpid(), signal.SIGINT)
            return real(self, *arguments, **options)

        patch.setattr(Learner, "update", update)
        for number in (2, 6):
            stopped = run_command("online", *line.split(), "--out", "part")
            assert stopped.exit_code == 130, stopped.output
            assert f"Saved after update {number}." in stopped.output
        again = run_command("online", *line.split(), "--out", "part")
    assert again.exit_code == 0, again.output
    for name in ("policy/policy.safetensors", "reward_model/policy.safetensors", "rankings.jsonl"):
        assert (Path("whole") / name).read_bytes() == (Path("part") / name).read_bytes(), name


def test_preferences_go_on_with_the_answers_that_would_have_been_drawn(mine, monkeypatch):
    monkeypatch.setattr("agents.jobs.preferences.AT_A_TIME", 8)
    line = "--policy base --prompts my.jsonl --labeller my.py:labels --max-new-tokens 4 --limit 30"
    at_call(None)
    assert run_command("preferences", *line.split(), "--out", "whole.jsonl").exit_code == 0
    at_call(20)  # within the third block; one call is a trial
    stopped = run_command("preferences", *line.split(), "--out", "part.jsonl")
    assert stopped.exit_code == 143 and "16 prompts are ranked" in stopped.output
    at_call(None)
    with Path("part.jsonl").open("a") as file:
        file.write('{"prompt": "ha')  # what a kill leaves of a record
    assert run_command("preferences", *line.split(), "--out", "part.jsonl").exit_code == 0
    assert Path("part.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()

import csv
import gc
import io
import json
import math
import re

import pytest
import torch
from rich.console import Console

from agents import PPO, Learner, Rollout, Update
from agents.runs.loggers import ConsoleLogger, CSVLogger
from agents.runs.metrics import numbers
from agents.runs.progress import TrainingBar, learn, watch
from agents.runs.stages import Stages
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import RewardError, TokenizerError

STEP = 4 * 8  # tokens of an update


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def vowels(episodes):
    return [sum(c in "aeiou" for c in e.text) for e in episodes]


def make_learner(reward=vowels, reference=True):
    envs = TextVectorEnv(4, prompts=["the ", "a "], reward=reward, max_new_tokens=6)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    return Learner(
        policy,
        envs,
        PPO(n_epochs=1),
        reference=policy.frozen_copy() if reference else None,
        n_steps=8,
    )


def plain_console():
    return Console(file=io.StringIO(), width=100)


class Recorder:
    """A logger that remembers."""

    def __init__(self):
        self.calls = []

    def log(self, step, numbers):
        self.calls.append((step, dict(numbers)))

    def close(self):
        raise AssertionError("learn closes nothing that it did not open")


# ---------------------------------------------------------------- what comes back


def test_learn_is_updates_without_rollouts():
    expected = list(make_learner().updates(3 * STEP))
    found = make_learner().learn(3 * STEP, progress=False)
    assert [update.tokens for update in found] == [STEP, 2 * STEP, 3 * STEP]
    for one, other in zip(found, expected, strict=True):
        assert one.rollout is None and other.rollout is not None
        assert (one.number, one.episodes, one.entropy, one.kl) == (
            (other.number, other.episodes, other.entropy, other.kl)
        )
        assert one.metrics["loss"] == other.metrics["loss"]


def test_no_rollout_stays_in_memory():
    def alive():
        gc.collect()
        return sum(type(thing) is Rollout for thing in gc.get_objects())

    learner, before = make_learner(), alive()
    updates = learner.learn(3 * STEP, progress=False)
    assert len(updates) == 3
    assert alive() == before


def test_watch_yields_rollouts_and_stops_with_its_reader():
    learner, console = make_learner(), Console(file=io.StringIO(), width=80, force_terminal=True)
    for update in watch(learner, 10 * STEP, console=console):
        assert update.rollout.num_tokens == STEP
        break
    assert learner.tokens_done == STEP
    assert console.file.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_a_learner_goes_on_where_it_was():
    learner = make_learner()
    learner.learn(STEP, progress=False)
    assert [update.number for update in learner.learn(3 * STEP, progress=False)] == [2, 3]
    assert learner.learn(3 * STEP, progress=False) == []


# ---------------------------------------------------------------- loggers


def test_loggers_get_every_update():
    one, other = Recorder(), Recorder()
    updates = make_learner().learn(3 * STEP, progress=False, loggers=[one, other])
    assert one.calls == other.calls == [(u.tokens, numbers(u)) for u in updates]


def test_numbers_by_hand():
    update = Update(
        number=2,
        tokens=64,
        episodes=9,
        score=math.nan,  # no episode ended
        kl=0.5,
        entropy=3.0,
        tokens_per_second=100.0,
        metrics={"loss": math.nan, "clip_fraction": 0.25},
    )
    found = numbers(update)
    assert math.isnan(found.pop("loss"))  # a fault, not a number that was not measured
    assert found == {
        "update": 2,
        "episodes": 9,
        "kl": 0.5,
        "entropy": 3.0,
        "tokens_per_second": 100.0,
        "clip_fraction": 0.25,
    }


def test_a_run_without_reference_logs_no_kl():
    recorder = Recorder()
    make_learner(reference=False).learn(STEP, progress=False, loggers=[recorder])
    (_, logged), *_ = recorder.calls
    assert "kl" not in logged
    assert logged["entropy"] == pytest.approx(math.log(257), abs=0.1)


def test_rows_outlive_a_reward_that_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the learner saves itself

    def failing(episodes):
        if learner.updates_done == 2:
            raise RuntimeError("no connection")
        return vowels(episodes)

    learner = make_learner(failing)
    console = plain_console()
    with pytest.raises(RewardError):
        learner.learn(9 * STEP, loggers=[CSVLogger("m.csv")], console=console)
    with open("m.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(STEP), str(2 * STEP)]
    assert "update 2" in console.file.getvalue()  # the bar is left as it was


# ---------------------------------------------------------------- samples


def test_samples_are_printed_and_filed(tmp_path):
    console, path = plain_console(), tmp_path / "samples.jsonl"
    learner = make_learner()
    learn(learner, 4 * STEP, samples_every=2, samples_file=path, console=console)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted({line["step"] for line in lines}) == [2 * STEP, 4 * STEP]
    for line in lines:
        assert line["prompt"] in ("the ", "a ")
        assert line["score"] == sum(c in "aeiou" for c in line["text"])
    text = console.file.getvalue()
    assert "after 64 tokens" in text and "after 128 tokens" in text
    assert "after 32 tokens" not in text


class TakesEverything(Recorder):
    """A logger of texts and distributions too."""

    def __init__(self):
        super().__init__()
        self.samples, self.histograms = [], []

    def log_samples(self, step, samples):
        self.samples.append((step, samples))

    def log_histogram(self, step, tag, values):
        self.histograms.append((step, tag, values))


def test_loggers_get_the_texts_and_the_scores_that_they_take():
    everything, plain, console = TakesEverything(), Recorder(), plain_console()
    updates = make_learner().learn(
        4 * STEP, loggers=[everything, plain], samples_every=2, console=console
    )
    assert [step for step, _ in everything.samples] == [2 * STEP, 4 * STEP]
    for _, samples in everything.samples:
        assert [s.score for s in samples] == sorted((s.score for s in samples), reverse=True)
        assert all(s.score == sum(c in "aeiou" for c in s.text) for s in samples)
    assert len(everything.calls) == len(plain.calls) == 4
    found = [(step, tag) for step, tag, _ in everything.histograms]
    assert found == [(u.tokens, "score/histogram") for u in updates if len(u.scores)]
    for (_, _, values), update in zip(everything.histograms, updates, strict=True):
        assert values.mean() == pytest.approx(update.score)


def test_an_evaluation_in_the_loop_shows_its_own_bar():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    for update in watch(make_learner(), 2 * STEP, console=console):
        with Stages(console).bar("Evaluation", 8, "answers") as advance:
            advance(8)
        console.print(f"score of update {update.number}: 0.5")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    lines = [line.strip() for line in text.splitlines()]
    assert text.count("8/8 answers") >= 2
    for number in (1, 2):
        assert f"score of update {number}: 0.5" in lines
    assert "64/64 tokens" in text and lines[-1].startswith("update 2  score")


def test_wrong_wishes_are_refused_before_training():
    learner = make_learner()
    with pytest.raises(ValueError, match="samples_every is 0"):
        learner.learn(STEP, samples_every=0)
    with pytest.raises(ValueError, match="say after how many"):
        learner.learn(STEP, samples_file="samples.jsonl")
    learner.policy.tokenizer = learner.envs.tokenizer = None
    with pytest.raises(TokenizerError, match="has a tokenizer"):
        learner.learn(STEP, samples_every=1)
    assert learner.tokens_done == 0


# ---------------------------------------------------------------- the bar


def update_of(tokens, **changes):
    given = {"score": 0.5, "kl": 0.01, "entropy": 5.0, "tokens_per_second": 5432.0}
    return Update(number=3, tokens=tokens, episodes=1, metrics={}, **(given | changes))


def drawn(done, total, update=None, width=100):
    """Both lines of the bar, without the bar's strokes and the times."""
    console = Console(file=io.StringIO(), width=width)
    bar = TrainingBar(done, total, console, visible=True)
    if update is not None:
        bar.show(update)
    console.print(bar.get_renderable())
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    first, second = lines
    return first.strip("━╸╺ ").split(" 0:00")[0].split(" -:--")[0].strip(), second.strip()


@pytest.mark.parametrize(
    ("update", "first", "second"),
    [
        (None, "0/200k tokens", "first rollout"),
        (
            update_of(12_345),
            "12.3k/200k tokens  5.43k tokens/s",
            "update 3  score 0.5  KL 0.01 nats/token  entropy 5 nats",
        ),
        (
            update_of(199_999, score=math.nan, kl=math.nan, tokens_per_second=1.5e6),
            "200k/200k tokens  1.5M tokens/s",
            "update 3  score -  KL - nats/token  entropy 5 nats",
        ),
    ],
)
def test_the_two_lines_by_hand(update, first, second):
    assert drawn(0, 200_000, update) == (first, second)


def test_the_bar_fits_80_columns_at_its_longest():
    update = update_of(123_456_789, score=-1.23456e-5, kl=-1.23456e-5, tokens_per_second=123_456)
    first, second = drawn(0, 999_000_000, update, width=80)
    assert first == "123M/999M tokens  123k tokens/s"
    assert second.endswith("entropy 5 nats")


def test_a_resumed_bar_begins_where_the_run_was():
    bar = TrainingBar(100, 1000, plain_console(), visible=True)
    assert bar.tasks[0].percentage == 10
    bar.show(update_of(400))
    assert bar.tasks[0].percentage == 40
    bar.show(update_of(1064))  # the last rollout may go beyond the total
    assert bar.tasks[0].percentage == 100
    assert bar.finished


def test_without_a_terminal_a_line_is_printed_now_and_then_and_the_end():
    console = plain_console()
    make_learner().learn(3 * STEP, console=console)
    *lines, bar, last = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["33%", "67%"]
    assert "update 1  score" in lines[0] and "update 2  score" in lines[1]
    assert "96/96 tokens" in bar and last.startswith("update 3  score")
    assert "\x1b" not in console.file.getvalue()


def test_no_progress_prints_nothing(capsys):
    make_learner().learn(STEP, progress=False)
    assert capsys.readouterr() == ("", "")


def test_lines_of_a_logger_stand_above_the_bar():
    console = plain_console()
    make_learner().learn(2 * STEP, loggers=[ConsoleLogger(["kl"], console)], console=console)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["step", "32", "64"]
    assert len(lines) == 5

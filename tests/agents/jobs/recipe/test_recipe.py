"""The whole recipe on a language of a few words, in seconds."""

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from command_line import run_command
from rich.console import Console

from agents import Learner, Trainer
from agents.collector import Collector
from agents.jobs.recipe import languages, settings
from agents.jobs.recipe.examination import BASE, DPO, PPO, PPO_PTX, SFT, examine
from agents.jobs.recipe.languages import Language
from agents.jobs.recipe.pipeline import STAGES, Recipe
from agents.jobs.recipe.settings import Settings, Size
from agents.runs.signals import Stopped
from agents.runs.stages import Stages
from agents.supervised import Fitting
from textenv.errors import DamagedCheckpointWarning

WORDS = ("good", "bad", "day", "night", "sun", "rain")


def sentences(count: int, seed: int) -> tuple[str, ...]:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, len(WORDS), (count, 5), generator=generator).tolist()
    return tuple(" ".join(WORDS[i] for i in row) for row in numbers)


def split(sentence: str) -> tuple[str, str]:
    words = sentence.split()
    return " ".join(words[:2]), " " + " ".join(words[2:])


TOY = Language(
    code="en",
    training=sentences(400, 0),
    held_out=sentences(60, 1),
    split=split,
    labeller=lambda prompt, answers: [float(a.count("o") - a.count("a")) for a in answers],
    judge=lambda prompt, answer: float(answer.count("o")),
    judged_by="count",
    good_from=1.0,
)
SMALL = Settings(
    size="small",
    vocab_size=270,
    context=40,
    max_new_tokens=6,
    pretrain_tokens=4000,
    demonstrations=60,
    ranked_prompts=30,
    answers_per_prompt=4,
    ppo_tokens=600,
    ppo_rows=16,
    best_of=2,
    eval_prompts=12,
    curve_points=2,
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    torch.set_num_threads(1)
    held_out = tuple(f"sun {word} rain good day" for word in ("one", "two", "three", "four"))
    language = replace(TOY, held_out=TOY.held_out + held_out)
    monkeypatch.setitem(languages.LANGUAGES, "en", lambda: language)
    monkeypatch.setitem(settings.SIZES, "small", Size(1, 2, 16))


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


def test_all_stages_are_made_once_and_only_what_depends_is_made_again(tmp_path, console):
    Recipe(SMALL, tmp_path, Stages(console)).run()
    times = {name: (tmp_path / name / "made_from.json").stat().st_mtime_ns for name in STAGES}
    result = examine(Recipe(SMALL, tmp_path, Stages(console)))
    assert list(result.rows) == [BASE, SFT, PPO, PPO_PTX, DPO, "best of 2"]
    assert result.rows[SFT]["kl"]["mean"] == pytest.approx(0.0, abs=1e-5)
    assert result.best_of[0][0] == 0.0 and result.best_of[1][1] >= result.best_of[0][1]
    assert [point[0] for point in result.history["ppo"]["updates"]][-1] >= 600

    Recipe(SMALL, tmp_path, Stages(console)).run()
    assert times == {n: (tmp_path / n / "made_from.json").stat().st_mtime_ns for n in STAGES}
    Recipe(replace(SMALL, kl_coef=1.0), tmp_path, Stages(console)).run()
    changed = {
        n for n in STAGES if (tmp_path / n / "made_from.json").stat().st_mtime_ns != times[n]
    }
    assert changed == {"ppo", "ppo_ptx"}


def test_the_command_ends_with_tables_and_a_page_without_links(tmp_path, monkeypatch):
    monkeypatch.setattr(Settings, "scaled", lambda self, budget: replace(SMALL, seed=self.seed))
    arguments = ["recipe", "--size", "small", "--seed", "0", "--seed", "1", "--out", str(tmp_path)]
    result = run_command(*arguments)
    assert result.exit_code == 0, result.output
    assert "Who is preferred" in result.output
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    HTMLParser().feed(page)
    for stage in (BASE, SFT, PPO, PPO_PTX, DPO):
        assert stage in page
    assert "src=" not in page and "<link" not in page


def test_ctrl_c_is_answered_by_the_recipe_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(Settings, "scaled", lambda self, budget: SMALL)
    played = Collector.collect_steps

    def stopped(collector, count):
        if collector.envs.num_envs == SMALL.ppo_rows and not Path("again").exists():
            raise KeyboardInterrupt  # in the background a signal would be ignored
        return played(collector, count)

    monkeypatch.setattr(Collector, "collect_steps", stopped)
    arguments = ["recipe", "--size", "small", "--out", "out"]
    result = run_command(*arguments)
    assert result.exit_code == 130, (result.exception, result.output)
    last = result.output.splitlines()[-2:]
    assert last == [
        "Stopped.",
        "Finished stages are kept in out/en-small-0. The same command goes on.",
    ]
    assert not Path("runs").exists()  # nothing of the learner within was saved
    finished = {path.name for path in Path("out/en-small-0").iterdir()}
    assert finished == set(STAGES) - {"ppo", "ppo_ptx"} | {"unfinished"}
    Path("again").touch()
    again = run_command(*arguments)
    assert again.exit_code == 0, again.output
    assert "dpo: made before" in again.output


def test_a_recipe_that_signals_stop_again_and_again_makes_the_same(tmp_path, console, monkeypatch):
    """Each goes on within the stage that was stopped: in a fit, in PPO, in an epoch of DPO."""
    Recipe(SMALL, tmp_path / "whole", Stages(console)).run()
    counts, stopped = Counter(), []

    def signalled(real, kind):
        def call(self, *arguments, **options):
            if type(self) is kind:  # a learner is a trainer, too
                counts[kind] += 1
                if (
                    counts[kind]
                    == {Fitting: (6, 2)[len(stopped) % 2], Learner: 3, Trainer: 1}[kind]
                ):
                    os.kill(os.getpid(), signal.SIGTERM)
            return real(self, *arguments, **options)

        return call

    for kind, name in ((Fitting, "step"), (Learner, "update"), (Trainer, "learn_from")):
        monkeypatch.setattr(kind, name, signalled(getattr(kind, name), kind))
    for _ in range(100):
        counts.clear()
        try:
            Recipe(SMALL, tmp_path / "part", Stages(console)).run()
            break
        except Stopped as error:
            (note,) = error.__notes__
            assert note.startswith("Saved after update")
            (stage,) = (path.name for path in (tmp_path / "part" / "unfinished").iterdir())
            stopped.append(stage)
    assert {"pretrained", "sft", "reward_model", "dpo", "ppo", "ppo_ptx"} <= set(stopped)
    whole, part = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).glob("*/*")
            if path.suffix == ".safetensors" or path.name == "history.json"
        }
        for name in ("whole", "part")
    )
    assert len(whole) >= 8 and whole == part
    assert not (tmp_path / "part" / "unfinished").exists()


def test_a_stage_that_is_damaged_is_made_anew(tmp_path, console):
    recipe = Recipe(SMALL, tmp_path, Stages(console))
    weights = recipe.sft().state_dict()
    path = tmp_path / "sft" / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(DamagedCheckpointWarning, match=r"sft is damaged: policy.safetensors has"):
        again = Recipe(SMALL, tmp_path, Stages(console)).sft().state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)

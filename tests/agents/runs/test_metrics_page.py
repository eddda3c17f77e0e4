"""docs/metrics.md names every number, and its logger runs."""

import re
from pathlib import Path

import pytest

from agents import PPO, Learner
from agents.runs.loggers import HistogramLogger, SampleLogger
from agents.runs.metrics import METRICS
from policies import TransformerPolicy
from textenv import TextVectorEnv

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_code():
    rows = re.findall(r"^\| `([a-z_]+)` \| `([a-z_/]+)` \| (.*?) ?\| (.*?) \|$", PAGE, flags=re.M)
    assert rows == [(m.name, m.tag, m.unit, m.meaning) for m in METRICS]


def test_every_number_is_explained():
    explained = set()
    for line in PAGE.splitlines():
        if names := re.match(r"\*\*.*?\*\*\. ", line):
            explained |= set(re.findall(r"\*\*([a-z_]+)\*\*", names[0]))
    explained |= set(re.findall(r"`(capped_fraction)` is the same", PAGE))
    counts = {"update", "episodes"}
    assert explained == {metric.name for metric in METRICS} - counts


def test_the_logger_of_the_page_runs(capsys):
    shown = re.findall(r"```python\n(class Best.*?)```", PAGE, flags=re.S)
    names: dict = {}
    exec("\n".join(shown), names)
    logger = names["BestAndSpread"]()
    assert isinstance(logger, SampleLogger) and isinstance(logger, HistogramLogger)
    envs = TextVectorEnv(
        4, prompts=["a "], reward=lambda es: [len(e.text) for e in es], max_new_tokens=4
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    learner = Learner(policy, envs, PPO(n_epochs=1), n_steps=4)
    updates = learner.learn(3 * 16, progress=False, loggers=[logger], samples_every=1)
    logger.close()
    best = max(updates, key=lambda update: update.score)
    assert f"best score {best.score:.3f} after {best.tokens} tokens" in capsys.readouterr().out
    assert isinstance(logger.text, str) and logger.spread >= 0


@pytest.mark.parametrize("name", ["loggers_of_run", "watch", "numbers"])
def test_what_the_page_imports_is_there(name):
    (module,) = set(re.findall(rf"from ([\w.]+) import {name}\b", PAGE))
    assert hasattr(__import__(module, fromlist=[name]), name)

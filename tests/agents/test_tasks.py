"""The sampled tasks of `benchmarks/tasks.py`: scores by hand, and what is learned on them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks import tasks

torch.set_num_threads(1)
STOP = tasks.Digits.stop_token


def answered(name, number, tokens):
    """Score of an answer to a number, as the environment pays it."""
    envs = tasks.TASKS[name].make_envs(1)
    envs.reset(options={"prompt": [tasks.TASKS[name].record(number)]})
    for token in tokens:
        _, rewards, terminated, _, _ = envs.step(np.array([token]))
    assert terminated.all()
    return rewards[0]


@pytest.mark.parametrize(
    ("name", "number", "tokens", "score"),
    [
        ("even ids", 7, [0, 1, 2, 3, 4, 5, 10, 11], 4 / 8),
        ("even ids", 7, [2] * 8, 1.0),
        ("copy", 905, [9, 0, 5, STOP], 1.0),
        ("copy", 905, [9, 5, 5, STOP], 2 / 3),
        ("copy", 905, [9, 0, STOP], 2 / 3),
        ("copy", 905, [9, 0, 5, 5], 3 / 4),  # it did not stop
        ("copy", 7, [STOP], 0.0),
        ("sort", 905, [0, 5, 9, STOP], 1.0),
        ("sort", 905, [0, 5, 8, STOP], 1 / 3),  # half of the two places in three
        ("sort", 905, [9, 0, 5, STOP], 0.0),
        ("sort", 905, [0, 5, 9, 9], 3 / 8),
        ("sort", 11, [0, 1, 1, STOP], 1.0),
    ],
)
def test_scores_by_hand(name, number, tokens, score):
    assert answered(name, number, tokens) == pytest.approx(score)


@pytest.mark.parametrize("name", ["copy", "sort"])
def test_the_right_answers_score_1(name):
    task = tasks.TASKS[name]
    log = tasks.right_answers(task, tasks.HELD_OUT)
    assert log.tokens[:, 3].tolist() == [10] * 200  # the end of the prompt
    for tokens, mask, number in zip(log.tokens[:20], log.mask, tasks.HELD_OUT, strict=False):
        assert answered(name, number, tokens[mask].tolist()) == 1.0
        assert tasks.Digits().decode(tokens[~mask]) == f"{number:03}>"


def test_no_held_out_prompt_is_trained_on():
    assert sorted([*tasks.TRAINING, *tasks.HELD_OUT]) == list(range(1_000))
    envs = tasks.TASKS["copy"].make_envs(256)
    _, infos = envs.reset(seed=0)
    asked = {int(prompt[:3]) for prompt in infos["prompt"]}
    assert len(asked) > 150 and asked <= set(tasks.TRAINING.tolist())


def test_every_algorithm_trains(monkeypatch):
    """One update of each; the figures that the table shows are finite."""
    monkeypatch.setattr(tasks, "ROWS", 16)
    monkeypatch.setattr(tasks, "LOGGED", 16)
    monkeypatch.setattr(tasks, "HELD_OUT", tasks.HELD_OUT[:16])
    for name, setting in (tasks.ONLINE | tasks.OFFLINE).items():
        train = tasks.train_online if name in tasks.ONLINE else tasks.train_offline
        *_, (trainer, tokens) = train("even ids", replace(setting, updates=1), seed=0)
        outcome = tasks.outcome("even ids", trainer.policy, seed=0)
        assert tokens >= 6 * 16 and outcome.kl != 0 and 0 < outcome.entropy < np.log(12)


@pytest.mark.parametrize("name", ["GRPO", "KTO"])
def test_scores_rise(name, monkeypatch):
    monkeypatch.setattr(tasks, "LOGGED", 1_024)
    before = tasks.outcome("even ids", tasks.beginner("even ids", 0), seed=0)
    if name in tasks.ONLINE:
        setting = replace(tasks.ONLINE[name], updates=12)
        *_, (trainer, _) = tasks.train_online("even ids", setting, seed=0)
    else:
        setting = replace(tasks.OFFLINE[name], updates=2)
        *_, (trainer, _) = tasks.train_offline("even ids", setting, seed=0)
    after = tasks.outcome("even ids", trainer.policy, seed=0)
    assert before.score == pytest.approx(0.5, abs=0.06) and before.kl == pytest.approx(0, abs=1e-6)
    assert after.score > 0.65

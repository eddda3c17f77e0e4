"""Every algorithm ends where the mathematics says, on an environment of 40 answers.

With the settings of `benchmarks/exact.py`: half as long with one seed, which comes within twice the
distance, and some of them in full over five seeds under the `slow` marker.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks import exact as tasks
from benchmarks import exact_sizes as sizes

torch.set_num_threads(1)
FIVE_SEEDS = ("RLOO", "DPO", "TreePO")
"""Trained in full on five seeds, too; `benchmarks/algorithms.py` does so with all."""


def runs(names):
    """Name, seed, and which part of the updates is trained."""
    half = [pytest.param(name, 0, 2, id=f"{name}-half") for name in names]
    full = [
        pytest.param(name, seed, 1, marks=pytest.mark.slow, id=f"{name}-{seed}")
        for name in names
        if name in FIVE_SEEDS
        for seed in range(5)
    ]
    return half + full


def before_and_after(train, name, setting, seed, parts):
    """Outcomes without training and after one of so many parts of it."""
    *_, (trainer, _) = train(replace(setting, updates=setting.updates // parts), seed)
    untrained = tasks.make_policy(seed)
    return (tasks.outcome(name, policy, seed) for policy in (untrained, trainer.policy))


@pytest.mark.parametrize(("name", "seed", "parts"), runs(tasks.LEASHED))
def test_with_a_leash_the_policy_ends_at_the_closed_form(name, seed, parts):
    setting = tasks.LEASHED[name]
    before, after = before_and_after(tasks.train_online, name, setting, seed, parts)
    assert before.total_variation > 0.2
    assert after.total_variation <= 0.05 * parts
    assert after.regret <= 0.01 * parts < before.regret


@pytest.mark.parametrize("name", tasks.FREE)
def test_without_a_leash_the_best_answer_is_found(name, seed=0, parts=2):
    setting = tasks.FREE[name]
    before, after = before_and_after(tasks.train_online, name, setting, seed, parts)
    assert before.share < 0.7
    assert after.share >= 1 - 0.05 * parts


@pytest.mark.parametrize(
    ("name", "seed", "parts"), runs([name for name in tasks.OFFLINE if name != "KTO"])
)
def test_from_a_log_the_policy_ends_at_the_closed_form(name, seed, parts):
    setting = tasks.OFFLINE[name]
    before, after = before_and_after(tasks.train_offline, name, setting, seed, parts)
    assert before.total_variation > 0.15
    assert after.total_variation <= 0.05 * parts


def test_kto_earns_more_than_before(seed=0, parts=2):
    setting = tasks.OFFLINE["KTO"]
    before, after = before_and_after(tasks.train_offline, "KTO", setting, seed, parts)
    assert after.share > before.share


# --- one schedule for all, with more and more answers ---------------------------------------------


def distances(answers, name, tokens, seed=0):
    """Total variation before and after."""
    task = replace(sizes.TASKS[answers], tokens=tokens)
    curve = [distance for _, distance in sizes.train(task, sizes.ALGORITHMS[name], seed)]
    return curve[0], curve[-1]


@pytest.mark.parametrize("name", sizes.ALGORITHMS)
def test_few_tokens_bring_forty_answers_most_of_the_way(name):
    before, after = distances(40, name, tokens=40_000)
    assert before > 0.28
    assert after < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("name", sizes.ALGORITHMS)
def test_341_answers_end_at_the_closed_form(name):
    task = sizes.TASKS[341]
    before, after = distances(341, name, task.tokens)
    assert before > 0.35
    assert after <= task.target

"""Rules that end a training early."""

import math

import numpy as np
import pytest
import torch

from agents import PPO, Learner
from agents.runs.stopping import Above, BeyondKL, PastBest, component, until
from agents.runs.update import Update
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import UnmetNeedError
from textenv.rewards import per_text, weighted

torch.set_num_threads(1)


def update(number, kl=0.1, judge=0.0, length=10.0):
    return Update(
        number=number,
        tokens=number,
        episodes=number,
        score=0.0,
        kl=kl,
        entropy=0.0,
        tokens_per_second=1.0,
        metrics={},
        tokens_per_answer=length,
        components={"judge": judge},
    )


def numbers(updates, *rules):
    return [u.number for u in until(updates, *rules)]


def test_the_distance_of_an_answer():
    far = [update(i, kl=0.1 * i) for i in range(1, 9)]
    assert numbers(far, BeyondKL(3.05)) == [1, 2, 3, 4]
    assert numbers(far, BeyondKL(100.0)) == list(range(1, 9))
    assert numbers([update(1, kl=9.0, length=math.nan), *far[:1]], BeyondKL(3.0)) == [1, 1]
    with pytest.raises(UnmetNeedError, match="reference"):
        numbers([update(1, kl=None)], BeyondKL(3.0))


def test_a_limit_and_several_rules():
    judged = [update(i, judge=float(i)) for i in range(1, 9)]
    assert numbers(judged, Above(component("judge"), 5.0)) == [1, 2, 3, 4, 5, 6]
    assert numbers(judged, Above(component("judge"), 5.0), BeyondKL(0.5)) == [1]


def test_past_the_best():
    values = [1.0, 2.0, 6.0, 3.0, 2.0, 1.0, 9.0, 9.0]
    judged = [update(i, judge=value) for i, value in enumerate(values, start=1)]
    rule = PastBest(component("judge"), patience=2, smoothing=2)
    # Means of two: 1.5, 4, 4.5, 2.5, 1.5: the best ends in update 4, two updates before the stop.
    assert numbers(judged, rule) == [1, 2, 3, 4, 5, 6]
    assert (rule.best, rule.best_update) == (4.5, 4)
    rising = [update(i, judge=float(i)) for i in range(1, 30)]
    assert len(numbers(rising, PastBest(component("judge")))) == 29
    unknown = [update(i, judge=math.nan) for i in range(1, 30)]
    assert len(numbers(unknown, PastBest(component("judge")))) == 29


def test_rules_see_every_update_even_behind_one_that_ends():
    seen = []
    rule = PastBest(lambda u: seen.append(u.number) or 0.0)
    assert numbers([update(1, kl=9.0), update(2)], BeyondKL(1.0), rule) == [1]
    assert seen == [1]


def test_a_learner_is_stopped():
    envs = TextVectorEnv(
        16,
        prompts=["a"],
        reward=weighted(
            letters=(1.0, per_text(lambda text: text.count("e"))),
            judge=(0.0, per_text(lambda text: -text.count("e"))),
        ),
        tokenizer="bytes",
        max_new_tokens=4,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    learner = Learner(
        policy, envs, PPO(), reference=policy.frozen_copy(), learning_rate=3e-2, n_steps=4
    )
    done = list(until(learner.updates(50_000), BeyondKL(2.0)))
    assert len(done) < 100 and done[-1].kl * done[-1].tokens_per_answer > 2.0
    assert all(u.kl * u.tokens_per_answer <= 2.0 for u in done[:-1])
    assert np.mean([component("judge")(u) for u in done]) <= 0

"""What an update says of the episodes that ended in it, counted anew from what the reward saw."""

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import GRPO, PPO, Learner, Rollout
from agents.runs.metrics import METRICS, numbers, tag_of
from policies import TransformerPolicy
from textenv import AutoresetMode, TextVectorEnv
from textenv.rewards import dense, weighted

ALLOWED = [*b"abcdefgh", 256]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Recording:
    """A reward that remembers the episodes it was asked for."""

    def __init__(self):
        self.episodes = []

    def __call__(self, episodes):
        self.episodes.extend(episodes)
        return [e.text.count("a") for e in episodes]

    def __deepcopy__(self, memo):
        return self


def make_learner(reward, algorithm=None, reference=False, **options):
    options = {"n_steps": 5} | options
    envs = TextVectorEnv(
        6,
        prompts=["the ", "a "],
        reward=reward,
        max_new_tokens=7,
        forbidden_tokens=[t for t in range(257) if t not in ALLOWED],
        group_size=options.pop("group_size", 1),
        autoreset_mode=options.pop("mode", AutoresetMode.SAME_STEP),
        budget=options.pop("budget", "terminate"),
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    return Learner(
        policy,
        envs,
        algorithm or PPO(n_epochs=1),
        reference=policy.frozen_copy() if reference else None,
        **options,
    )


def sizes(episodes):
    return [len(e.text) for e in episodes]


@pytest.mark.parametrize("budget", ["terminate", "truncate"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_numbers_are_those_of_the_episodes_that_ended(mode, budget):
    """Rollouts of 5 steps cut most answers, so that the counts go over several rollouts."""
    seen = Recording()
    reward = weighted(
        a=(2.0, seen), size=(0.5, sizes), cost=(-1.0, dense(lambda b: 0.1 + 0 * b.actions))
    )
    learner = make_learner(reward, mode=mode, budget=budget)
    checked = 0
    for _ in range(8):
        seen.episodes.clear()
        update = learner.update()
        ended = seen.episodes
        if not ended:
            continue
        checked += 1
        lengths = np.array([len(e.tokens) for e in ended])
        a = np.array([e.text.count("a") for e in ended])
        size = np.array([len(e.text) for e in ended])
        scores = 2 * a + 0.5 * size - 0.1 * lengths
        assert update.tokens_per_answer == pytest.approx(lengths.mean())
        spent = np.mean([e.finish_reason == "length" for e in ended])
        assert update.ended_by_budget == pytest.approx(spent)
        assert update.components == pytest.approx(
            {"a": a.mean(), "size": size.mean(), "cost": 0.1 * lengths.mean()}, rel=1e-5
        )
        assert np.sort(update.scores) == pytest.approx(np.sort(scores), rel=1e-5)
        assert update.score == pytest.approx(scores.mean(), rel=1e-5)
        assert update.score_std == pytest.approx(scores.std(), rel=1e-4, abs=1e-5)
        logged = numbers(update)
        assert logged["component.size"] == update.components["size"]
        assert logged["ended_by_budget"] == update.ended_by_budget
    assert checked >= 5


def test_a_reward_that_is_no_sum_has_no_components():
    update = make_learner(sizes).update()
    assert update.components == {}
    assert not [name for name in numbers(update) if name.startswith("component")]


def test_nothing_that_was_not_measured_is_logged():
    update = make_learner(sizes, n_steps=1, budget="truncate")
    update.envs._is_stop = np.zeros_like(update.envs._is_stop)
    found = update.update()
    assert found.episodes == 0 and len(found.scores) == 0 and math.isnan(found.score_std)
    assert not {"score", "score_std", "tokens_per_answer", "ended_by_budget", "kl"} & set(
        numbers(found)
    )


def test_seconds_of_rollout_reference_and_update_make_up_the_whole():
    update = make_learner(sizes, reference=True).update()
    parts = [update.metrics[f"{part}_seconds"] for part in ("rollout", "reference", "update")]
    assert min(parts) > 0
    assert update.tokens / update.tokens_per_second == pytest.approx(sum(parts))
    assert "reference_seconds" not in make_learner(sizes).update().metrics


def test_explained_variance_only_where_values_are_learned():
    assert "explained_variance" in make_learner(sizes).update().metrics
    grouped = make_learner(sizes, GRPO(), group_size=2, n_steps=None, n_episodes=4)
    assert "explained_variance" not in grouped.update().metrics


def test_every_number_of_a_run_has_a_tag_of_its_own():
    names = {metric.name for metric in METRICS}
    for learner in (
        make_learner(sizes, reference=True),
        make_learner(sizes, GRPO(), group_size=2, n_steps=None, n_episodes=4),
    ):
        assert set(numbers(learner.update())) <= names
    tags = [tag_of(name) for name in names]
    assert len(set(tags)) == len(tags) == len(METRICS)
    assert all(tag.count("/") == 1 and not tag.startswith("other/") for tag in tags)


def test_endings_go_where_their_sequences_go():
    reward = weighted(a=(1.0, Recording()), size=(1.0, sizes))
    rollout = make_learner(reward, n_steps=9).collect()
    chosen = torch.tensor([2, 0])
    for name, values in rollout.select(chosen).endings.items():
        torch.testing.assert_close(
            values, rollout.endings[name][chosen], rtol=0, atol=0, equal_nan=True
        )
    plain = replace(rollout, endings=None)
    together = Rollout.cat([rollout, plain, rollout.select(chosen)]).endings
    count = len(rollout)
    assert set(together) == {"tokens", "by_budget", "component.a", "component.size"}
    unknown = torch.full((count,), torch.nan)
    for name, values in together.items():
        own = rollout.endings[name]
        expected = torch.cat([own, unknown, own[chosen]])
        torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
    assert Rollout.cat([plain, plain]).endings is None
    torch.testing.assert_close(
        rollout.to("cpu").endings, rollout.endings, rtol=0, atol=0, equal_nan=True
    )


class Foreign(gym.Env):
    """Ends by its own rule with an even token, and tells no `finish_reason`."""

    observation_space = gym.spaces.Box(0, 4, (12,), np.int64)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.text = np.full(12, 4)
        self.text[0], self.length = 1, 1
        return self.text.copy(), {}

    def step(self, action):
        self.text[self.length] = action
        self.length += 1
        return self.text.copy(), 1.0, action % 2 == 0, False, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_an_environment_that_tells_no_reason_has_no_share_of_the_budget(mode):
    """Not even where a TimeLimit truncates: only the environment knows why."""
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.wrappers.TimeLimit(Foreign(), 3)] * 4, autoreset_mode=mode
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    learner = Learner(policy, envs, PPO(n_epochs=1), n_steps=20)
    update = learner.update()
    assert update.rollout.terminated.any() and update.rollout.truncated.any()
    assert math.isnan(update.ended_by_budget)
    assert "ended_by_budget" not in numbers(update)
    assert 1 <= update.tokens_per_answer <= 3
    envs.close()

"""The pool with Ray's actors: the same rollouts, bit for bit, whatever becomes of the actors.

What a pool does is tested with workers of this process in test_pool.py.
"""

import os
import signal
import sys
import time
import warnings
from functools import partial

import pytest
import torch
from pools import answers, assert_same, conversations, count_a, move, policy_for

from agents import PPO, Learner
from agents.remote import LocalCollectors, RayCollectors
from textenv.errors import ReplacedWorkerWarning, RewardRaisedError, UnmetNeedError

ray = pytest.importorskip("ray")
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the actors: they import this too
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Deadly:
    """Counts the letter a; whoever finds the file while it does so takes it away and dies."""

    def __init__(self, path):
        self.path = path

    def __call__(self, episodes):
        try:
            self.path.unlink()
        except FileNotFoundError:
            return count_a(episodes)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_training_is_that_of_local_workers_though_actors_are_killed(tmp_path):
    """PPO one update behind: rollouts and weights bit for bit, no episode lost or twice."""
    path = tmp_path / "poison"
    envs = answers(reward=Deadly(path))
    found = []
    for kind in (LocalCollectors, RayCollectors):
        learner = Learner(
            policy_for(envs),
            envs,
            PPO(n_epochs=2),
            n_episodes=8,
            learning_rate=1e-2,
            importance_cap=2.0,
            collector=partial(kind, workers=2, staleness=1),
        )
        rollouts, replaced = [], 0.0
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for number in range(5):
                if kind is RayCollectors and number in (1, 3):
                    path.touch()
                update = learner.update()
                rollouts.append(update.rollout)
                replaced += update.metrics["replaced_workers"]
        assert replaced == (2 if kind is RayCollectors else 0)
        assert [one.category for one in told] == [ReplacedWorkerWarning] * int(replaced)
        found.append((rollouts, [p.detach().clone() for p in learner.policy.parameters()]))
    (rollouts, weights), (expected, expected_weights) = found
    for one, other in zip(rollouts, expected, strict=True):
        assert_same(one, other)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected_weights, strict=True))
    seeds = [start.episode_seed for rollout in expected for start in rollout.starts]
    assert len(set(seeds)) == len(seeds) == 40


def test_in_step_and_in_conversations():
    envs = conversations()
    policy = policy_for(envs)
    actors, local = (
        kind(policy, envs, 0.8, 5, workers=2) for kind in (RayCollectors, LocalCollectors)
    )
    for number in range(2):
        assert_same(actors.collect_episodes(8), local.collect_episodes(8))
        move(policy, number)
    rollout = local.collect_episodes(8)
    assert_same(actors.collect_episodes(8), rollout)
    starts = [rollout.start(s, int(rollout.mask[s].nonzero()[0])) for s in range(3)]
    assert_same(actors.collect_from(starts, 2), local.collect_from(starts, 2))


def slow_or_broken(episodes):
    """Scores, after a while; an answer of one token breaks it."""
    if any(len(episode.tokens) == 1 for episode in episodes):
        raise OSError("no answer from the server")
    time.sleep(0.2)
    return [1.0 for _ in episodes]


def test_rewards_are_called_in_the_actors():
    """At the same time, and what they raise comes back as what it is."""
    envs = answers(reward=slow_or_broken, stop_tokens=[], max_new_tokens=2, group_size=1)
    pool = RayCollectors(policy_for(envs), envs, seed=5, workers=2)
    pool.collect_episodes(8)
    begin = time.perf_counter()
    for _ in range(4):  # each sleeps once in both actors
        pool.collect_episodes(8)
    assert time.perf_counter() - begin < 8 * 0.2 * 0.9
    broken = answers(reward=slow_or_broken, max_new_tokens=1, group_size=1)
    with pytest.raises(RewardRaisedError, match="no answer from the server"):
        RayCollectors(policy_for(broken), broken, seed=5, workers=1).collect_episodes(8)


def test_more_workers_than_there_is_room_for():
    envs = answers(group_size=1)
    with pytest.raises(UnmetNeedError, match=r"8 workers need 8 CPUs and Ray has 4"):
        RayCollectors(policy_for(envs), envs, workers=8)

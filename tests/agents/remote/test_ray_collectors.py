"""The pool with Ray's actors: the same rollouts, bit for bit, whatever becomes of the actors.

What a pool does is tested with workers of this process in test_worker_pools.py. Actors begin
slowly, so there is one pool of two, one update ahead; each test does the same to it and to a local
one.
"""

import os
import re
import signal
import sys
import warnings
from functools import partial

import pytest
import torch
from pools import answers, assert_same, count_a, policy_for

from agents import PPO, Learner
from agents.remote import LocalCollectors, RayCollectors
from textenv.errors import ReplacedWorkerWarning, RewardRaisedError, UnmetNeedError

ray = pytest.importorskip("ray")
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the actors: they import this too
        for try_again in (True, False):
            try:
                ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
                break
            except Exception:  # on a machine that is busy its processes may begin too late
                ray.shutdown()
                if not try_again:
                    raise
    yield
    ray.shutdown()


class Moody:
    """Counts the letter a; a file says what it does instead: to die, once, or to raise."""

    def __init__(self, path):
        self.path = path

    def __call__(self, episodes):
        mood = self.path.read_text() if self.path.exists() else ""
        if mood == "raise":
            raise OSError(f"process {os.getpid()} has no server")
        if mood == "die":
            try:
                self.path.unlink()
            except FileNotFoundError:  # the other one was faster
                return count_a(episodes)
            os.kill(os.getpid(), signal.SIGKILL)
        return count_a(episodes)


@pytest.fixture(scope="module")
def mood(tmp_path_factory):
    return tmp_path_factory.mktemp("mood") / "mood"


@pytest.fixture(scope="module")
def learners(_ray, mood):
    """The one with actors and the one without."""
    envs = answers(reward=Moody(mood))
    return [
        Learner(
            policy_for(envs),
            envs,
            PPO(n_epochs=2),
            n_episodes=8,
            learning_rate=1e-2,
            importance_cap=2.0,
            collector=partial(kind, workers=2, staleness=1),
        )
        for kind in (RayCollectors, LocalCollectors)
    ]


def test_a_training_is_that_of_local_workers_though_an_actor_is_killed(learners, mood):
    """Rollouts and weights bit for bit, no episode lost or twice."""
    actors, local = learners
    expected = [local.update().rollout for _ in range(4)]
    found, replaced = [], 0.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for number in range(4):
            if number == 1:  # it dies while it plays, in the middle of its episodes
                mood.write_text("die")
            update = actors.update()
            found.append(update.rollout)
            replaced += update.metrics["replaced_workers"]
    assert replaced == 1 and [one.category for one in told] == [ReplacedWorkerWarning]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    pairs = zip(actors.policy.parameters(), local.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    seeds = [start.episode_seed for rollout in found for start in rollout.starts]
    assert len(set(seeds)) == len(seeds) == 32


def test_continuations_are_played_in_the_actors(learners):
    actors, local = (learner.collector for learner in learners)
    rollouts = [pool.collect_episodes(8) for pool in (actors, local)]
    assert_same(*rollouts)
    starts = [rollouts[1].start(s, int(rollouts[1].mask[s].nonzero()[0])) for s in range(3)]
    assert_same(actors.collect_from(starts, 2), local.collect_from(starts, 2))


def test_what_a_reward_raises_in_an_actor_is_raised_here(learners, mood):
    """And the next try plays the same episodes again."""
    processes = []
    for learner in learners:
        mood.write_text("raise")
        with pytest.raises(RewardRaisedError, match=r"process \d+ has no server") as raised:
            for _ in range(2):  # the first was played before
                learner.collector.collect_episodes(8)
        processes.append(int(re.search(r"process (\d+)", str(raised.value))[1]))
        mood.unlink()
    assert processes[0] != processes[1] == os.getpid()
    assert_same(*(learner.collector.collect_episodes(8) for learner in learners))


def test_a_saved_training_goes_on_with_new_actors(learners, tmp_path):
    """There is room for them, although the pool has actors already; one order was under way."""
    actors, local = learners
    actors.save(tmp_path)
    expected = [local.update().rollout for _ in range(2)]
    actors.update()  # forgotten
    actors.load(tmp_path)
    for one in expected:
        assert_same(actors.update().rollout, one, but=("starts", "texts"))


def test_more_workers_than_there_is_room_for():
    envs = answers(group_size=1)
    with pytest.raises(UnmetNeedError, match=r"8 workers need 8 CPUs and Ray has 2"):
        RayCollectors(policy_for(envs), envs, workers=8)

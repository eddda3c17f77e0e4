"""The pool with Ray's actors: the same rollouts, bit for bit, whatever becomes of the actors.

What a pool does is tested with workers of this process in test_worker_pools.py. Actors begin
slowly, so there is one pool of two, one update ahead; each test does the same to it and to a local
one.
"""

import gc
import importlib
import os
import re
import signal
import sys
import time
import warnings
from functools import partial

import pytest
import torch
from pools import answers, assert_same, conversations, count_a, policy_for

from agents import PPO, Collector, Learner
from agents.remote import LocalCollectors, RayCollectors, ray_collectors
from agents.remote.worker import Part
from textenv.errors import (
    LateWorkerWarning,
    LostProcessError,
    ReplacedWorkerWarning,
    RewardRaisedError,
    UnmetNeedError,
)

ray = pytest.importorskip("ray")
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the actors: they import this too
        for try_again in (True, False):
            try:
                ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
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
        if mood == "meet":  # goes on when all three are there at once
            place = self.path.with_name(f"process-{os.getpid()}")
            place.touch()
            for _ in range(600):
                if len(list(place.parent.glob("process-*"))) == 3:
                    return count_a(episodes)
                time.sleep(0.1)
            raise OSError("nobody else was there")
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
    found, ages, replaced = [], [], 0.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for number in range(4):
            if number == 1:  # it dies while it plays, in the middle of its episodes
                mood.write_text("die")
            update = actors.update()
            found.append(update.rollout)
            ages.append(update.metrics["weights_age"])
            replaced += update.metrics["replaced_workers"]
    assert ages == [0, 1, 1, 1]
    assert replaced == 1 and [one.category for one in told] == [ReplacedWorkerWarning]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    pairs = zip(actors.policy.parameters(), local.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    seeds = [start.episode_seed for rollout in found for start in rollout.starts]
    assert len(set(seeds)) == len(seeds) == 32


def test_slow_rewards_run_in_all_actors_while_the_learner_does_something_else(learners, mood):
    """Each waits for the other and for this process, which is free: it is one rollout ahead."""
    actors, local = learners
    ahead = [place.asked[0].answer for place in actors.collector._places]
    assert len(ray.wait(ahead, num_returns=2, timeout=60)[0]) == 2  # they have played it
    mood.write_text("meet")
    first = actors.collector.collect_episodes(8)  # and begin the next one
    mood.with_name("process-of-the-learner").touch()
    second = actors.collector.collect_episodes(8)
    mood.unlink()
    for one in (first, second):
        assert_same(one, local.collector.collect_episodes(8))


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
    with pytest.raises(UnmetNeedError, match=r"8 workers need 8 CPUs and Ray has 3"):
        RayCollectors(policy_for(envs), envs, workers=8)


def test_in_step_an_adapter_in_an_actor_plays_what_a_collector_does():
    """Token for token with the same numbers; the model under the adapter is sent once."""
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    from policies.huggingface import HuggingFacePolicy

    envs = answers()
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=4,
        num_hidden_layers=1,
        vocab_size=int(envs.single_action_space.n),
        max_position_embeddings=12,
    )
    policy = HuggingFacePolicy(
        transformers.LlamaForCausalLM(config), envs.unwrapped.tokenizer, context=12
    )
    policy.add_adapter(peft.LoraConfig(r=2, target_modules="all-linear"))
    trained = [p for p in policy.parameters() if p.requires_grad]
    pool = RayCollectors(policy, envs, seed=5, workers=1, num_cpus=0)
    collector = Collector(policy, answers(), seed=5)
    for number in range(3):
        assert_same(pool.collect_episodes(8), collector.collect_episodes(8))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    buffers = sum(b.numel() * b.element_size() for b in policy.buffers())
    assert pool.weights.packed().nbytes == sum(4 * p.numel() for p in trained) + buffers


def test_worlds_are_played_in_the_actors():
    envs = conversations()
    pools = [
        kind(policy_for(envs), envs, seed=5, workers=1, **options)
        for kind, options in ((RayCollectors, {"num_cpus": 0}), (LocalCollectors, {}))
    ]
    for _ in range(2):
        assert_same(*(pool.collect_episodes(8) for pool in pools))


def test_an_actor_that_cannot_begin_says_why(tmp_path, monkeypatch):
    """A module is here and not there: no other actor could begin either."""
    (tmp_path / "only_here.py").write_text("def reward(episodes): return [0.0] * len(episodes)")
    monkeypatch.syspath_prepend(tmp_path)
    envs = answers(reward=importlib.import_module("only_here").reward)
    with pytest.raises(LostProcessError, match=r"^a worker could not begin: .*'only_here'.*PYTHON"):
        RayCollectors(policy_for(envs), envs, workers=1, num_cpus=0)


def test_a_worker_that_waits_for_processors_is_told_of(learners, monkeypatch):
    """The learner's pool has two, and of the third it is told only while somebody holds it."""
    envs = answers()
    monkeypatch.setattr(RayCollectors, "take", lambda *_: Part(None, {}, None, None, ""))
    holder = type("Holder", (), {})()
    holder.actor, holder.itself = ray.remote(num_cpus=1)(Moody).remote(None), holder
    ray.get(holder.actor.__ray_ready__.remote())
    with monkeypatch.context() as patch:
        patch.setattr(ray_collectors, "PATIENCE", 0.1)
        with pytest.warns(LateWorkerWarning, match=r"others have \(1 CPUs, 0 free\).*del learner"):
            RayCollectors(policy_for(envs), envs, workers=1)
    monkeypatch.setattr(ray_collectors, "PATIENCE", 60)
    gc.disable()
    try:
        del holder  # nobody refers to it but itself
        RayCollectors(policy_for(envs), envs, workers=1)
    finally:
        gc.enable()

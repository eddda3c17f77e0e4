"""Pools of workers against collectors of the same rows, token by token and bit for bit.

The workers are objects of this process here; test_ray_collectors.py has the same pool with actors.
"""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from pools import answers, assert_same, conversations, move, policy_for
from toys import letters_env

from agents import GRPO, PPO, RLOO, Collector, Learner, Rollout, VinePPO
from agents.remote import LocalCollectors
from agents.remote.pool import TRIES, WorkerDiedError
from agents.remote.weights import SentWeights, unpack
from agents.runs.state_files import read_state, write_state
from textenv.errors import (
    CheckpointError,
    LostProcessError,
    ReplacedWorkerWarning,
    RewardRaisedError,
    UnmetNeedError,
)

torch.set_num_threads(1)


def shares(policy, envs, of, temperature=1.0, seed=5):
    """The collectors that the workers are."""
    return [Collector(policy, envs.share(index, of), temperature, seed) for index in range(of)]


# --- the present weights --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [answers, conversations])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_in_step_a_rollout_is_that_of_the_shares_bit_for_bit(make, workers):
    envs = make()
    policy = policy_for(envs)
    pool = LocalCollectors(policy, envs, 0.8, 5, workers=workers)
    local = shares(policy, envs, workers, 0.8)
    for number in range(3):
        found = pool.collect_episodes(16)
        parts = [each.collect_episodes(16 // workers) for each in local]
        assert_same(found, Rollout.cat(parts))
        assert len(found) == 16 and pool.report()["weights_age"] == 0
        found = pool.collect_steps(3)
        assert_same(found, Rollout.cat([each.collect_steps(3) for each in local]))
        move(policy, number)
        pool.forget()


def test_one_worker_collects_what_a_collector_does():
    envs = answers()
    policy = policy_for(envs)
    pool = LocalCollectors(policy, envs, seed=5, workers=1)
    collector = Collector(policy, answers(), seed=5)
    for number in range(3):
        assert_same(pool.collect_episodes(8), collector.collect_episodes(8))
        move(policy, number)


def test_steps_of_all_workers_are_those_of_the_whole_environment():
    """In another order: here the sequences of each worker stand together."""
    envs = answers()
    policy = policy_for(envs)
    pool = LocalCollectors(policy, envs, seed=5, workers=4)
    whole = Collector(policy, answers(), seed=5)

    def told(rollout):
        rows = zip(rollout.starts, rollout.tokens, rollout.mask, rollout.scores, strict=True)
        return sorted(
            (start.episode_seed, tokens[mask].tolist(), score.item())
            for start, tokens, mask, score in rows
        )

    for number in range(3):
        assert told(pool.collect_steps(7)) == told(whole.collect_steps(7))
        move(policy, number)


def test_continuations_are_those_of_a_collector():
    envs = answers()
    policy = policy_for(envs)
    pool = LocalCollectors(policy, envs, seed=5, workers=2)
    collector = Collector(policy, answers(), seed=5)
    rollout = collector.collect_episodes(8)
    assert_same(rollout.select(torch.arange(4)), rollout.select(torch.arange(4)))
    starts = [rollout.start(s, int(rollout.mask[s].nonzero()[0])) for s in range(5)]
    for _ in range(2):  # the second time with other random numbers
        found, expected = (each.collect_from(starts, 3) for each in (pool, collector))
        assert_same(found, expected, but=("logprobs", "values"))
        torch.testing.assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=0)
    assert found.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    pool.collect_episodes(8)  # and the running episodes go on


# --- older weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [1, 3])
def test_rollouts_are_of_weights_as_old_as_said(staleness):
    """Of steps, each token of them."""
    envs = answers()
    policy = policy_for(envs)
    pool = LocalCollectors(policy, envs, seed=5, workers=2, staleness=staleness)
    at, ages = [], []
    for number in range(7):
        at.append(copy.deepcopy(policy))
        rollout = pool.collect_steps(4)
        ages.append(pool.report()["weights_age"])
        sampler = at[max(number - staleness, 0)]
        with torch.no_grad():
            logprobs = sampler.outputs(rollout.tokens, rollout.mask).logprobs
        torch.testing.assert_close(rollout.logprobs, logprobs, atol=1e-4, rtol=0)
        move(policy, number)
        pool.forget()
    assert ages == [float(min(number, staleness)) for number in range(7)]


def test_a_rollout_ahead_is_counted_once():
    """The rollouts of a pool that is ahead are those of one in step, if the weights stay."""
    envs = answers()
    policy = policy_for(envs)
    ahead, in_step = (LocalCollectors(policy, envs, seed=5, workers=2, staleness=n) for n in (2, 0))
    for _ in range(4):
        assert_same(ahead.collect_episodes(8), in_step.collect_episodes(8))


def test_a_learner_with_older_weights_says_how_to_correct_it():
    envs = answers()
    options = {"n_episodes": 8, "collector": partial(LocalCollectors, workers=2, staleness=1)}
    with pytest.raises(UnmetNeedError, match=r"staleness=1 .* importance_cap=2\.0"):
        Learner(policy_for(envs), envs, RLOO(), **options)
    learner = Learner(policy_for(envs), envs, RLOO(), importance_cap=2.0, **options)
    assert [learner.update().metrics["weights_age"] for _ in range(3)] == [0, 1, 1]


def test_a_pool_that_is_ahead_was_asked_for_rollouts_of_one_length():
    envs = answers()
    pool = LocalCollectors(policy_for(envs), envs, workers=2, staleness=1)
    pool.collect_episodes(8)
    with pytest.raises(UnmetNeedError, match="asked for 4 episodes each and not for 2 steps"):
        pool.collect_steps(2)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO(n_epochs=2), GRPO()], ids=["PPO", "GRPO"])
def test_a_training_with_one_worker_is_the_one_without(algorithm):
    """Weights and metrics bit for bit."""
    found = []
    for collector in (Collector, partial(LocalCollectors, workers=1)):
        envs = answers()
        policy = policy_for(envs)
        learner = Learner(
            policy,
            envs,
            algorithm,
            reference=policy.frozen_copy(),
            kl_coef=0.1,
            n_episodes=8,
            learning_rate=1e-2,
            collector=collector,
        )
        updates = [learner.update() for _ in range(4)]
        numbers = [(u.score, u.kl, u.tokens, u.metrics["loss"]) for u in updates]
        found.append((numbers, [p.detach().clone() for p in policy.parameters()]))
    (numbers, weights), (expected, expected_weights) = found
    assert numbers == expected
    assert all(torch.equal(a, b) for a, b in zip(weights, expected_weights, strict=True))


def test_values_from_continuations_come_from_the_workers():
    envs = answers(group_size=1)
    learner = Learner(
        policy_for(envs),
        envs,
        VinePPO(continuations=2, step_tokens=2),
        n_episodes=8,
        importance_cap=2.0,
        collector=partial(LocalCollectors, workers=2, staleness=1),
    )
    for _ in range(3):
        assert np.isfinite(learner.update().metrics["loss"])


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_training_goes_on_bit_for_bit(staleness, tmp_path):
    """What the workers have yet to answer is asked of the new ones, with the weights of then."""

    def learner():
        envs = answers()
        return Learner(
            policy_for(envs),
            envs,
            PPO(n_epochs=2),
            n_episodes=8,
            learning_rate=1e-2,
            importance_cap=2.0,
            collector=partial(LocalCollectors, workers=2, staleness=staleness),
        )

    whole = learner()
    expected = [whole.update() for _ in range(6)]
    first = learner()
    for _ in range(3):
        first.update()
    first.save(tmp_path)
    second = learner()
    move(second.policy, 0)  # made otherwise, and loaded
    second.load(tmp_path)
    for one in expected[3:]:
        other = second.update()
        assert_same(one.rollout, other.rollout, but=("starts", "texts"))
        assert other.metrics["weights_age"] == min(staleness, 3)
    pairs = zip(whole.policy.parameters(), second.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_state_of_another_number_of_workers_is_refused(tmp_path):
    envs = answers()
    policy = policy_for(envs)
    two, four = (LocalCollectors(policy, envs, workers=n) for n in (2, 4))
    two.collect_steps(2)
    write_state(tmp_path, "pool", two.state_dict())
    with pytest.raises(CheckpointError, match="saved with 2 workers, and there are 4"):
        four.load_state_dict(read_state(tmp_path, "pool"))


# --- workers that die -----------------------------------------------------------------------------


class Mortal(LocalCollectors):
    """The answers of workers that are in `doomed` get lost, as often as said."""

    def __init__(self, *arguments, **options):
        self.doomed = {}
        super().__init__(*arguments, **options)

    def ask(self, worker, method, *arguments):
        return worker, method, super().ask(worker, method, *arguments)

    def take(self, answer):
        worker, method, result = answer
        index = -1
        if self.doomed and method == "play":
            index = [place.worker for place in self._places].index(worker)
        if self.doomed.get(index):
            self.doomed[index] -= 1
            raise WorkerDiedError("the machine was taken away")
        return super().take(result)


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("make", [answers, conversations])
def test_what_a_dead_worker_played_is_played_again_and_counted_once(make, staleness):
    """A pool whose workers die gives what one does whose workers live."""
    envs = make()
    policies = policy_for(envs), policy_for(envs)
    options = {"seed": 5, "workers": 2, "staleness": staleness}
    mortal, safe = (
        Mortal(policies[0], envs, **options),
        LocalCollectors(policies[1], envs, **options),
    )
    for number in range(6):
        mortal.doomed = [{0: 1}, {}, {1: 2}, {0: 1, 1: 1}, {}, {}][number]
        deaths = sum(mortal.doomed.values())
        if deaths:
            with pytest.warns(ReplacedWorkerWarning, match=r"played again: the machine was taken"):
                found = mortal.collect_episodes(8)
        else:
            found = mortal.collect_episodes(8)
        assert_same(found, safe.collect_episodes(8))
        assert mortal.report()["replaced_workers"] == deaths
        for policy in policies:
            move(policy, number)


def test_an_order_that_kills_every_worker_ends_the_training():
    """Whoever tries it once more gets as many workers, and the same episodes."""
    envs = answers()
    pool, safe = (
        kind(policy_for(envs), envs, seed=5, workers=2) for kind in (Mortal, LocalCollectors)
    )
    for _ in range(2):
        pool.doomed = {1: TRIES}
        with (
            pytest.warns(ReplacedWorkerWarning),
            pytest.raises(
                LostProcessError, match=r"3 workers died .* 4 episodes; the last time: the"
            ),
        ):
            pool.collect_episodes(8)
    pool.doomed = {1: TRIES - 1}
    with pytest.warns(ReplacedWorkerWarning):
        assert_same(pool.collect_episodes(8), safe.collect_episodes(8))


def test_episodes_that_cannot_be_saved_cannot_be_played_again():
    """From the beginning they can: nothing of them was counted."""
    envs = answers(prompts=[{"prompt": "a", "what": {1}}], max_prompt_tokens=1)
    pool = Mortal(policy_for(envs), envs, workers=2)
    pool.doomed = {0: 1}
    with pytest.warns(ReplacedWorkerWarning):
        pool.collect_episodes(8)
    pool.doomed = {0: 1}
    with pytest.raises(LostProcessError, match=r"worker 0 died .* cannot be played again"):
        pool.collect_episodes(8)
    with pytest.raises(Exception, match="what"):
        pool.state_dict()


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [0, 1])
def test_an_exception_of_a_reward_is_raised_and_the_next_try_plays_the_same(staleness):
    broken = [False]

    def reward(episodes):
        if broken[0]:
            raise OSError("the server is away")
        return [float(len(e.text)) for e in episodes]

    envs = answers(reward=reward)
    policy = policy_for(envs)
    pool, safe = (
        LocalCollectors(policy, envs, seed=5, workers=2, staleness=staleness) for _ in range(2)
    )
    assert_same(pool.collect_episodes(8), safe.collect_episodes(8))
    broken[0] = True
    with pytest.raises(RewardRaisedError, match="the server is away"):
        for _ in range(1 + staleness):  # the one ahead was played before
            pool.collect_episodes(8)
    broken[0] = False
    if staleness:
        safe.collect_episodes(8)
    assert_same(pool.collect_episodes(8), safe.collect_episodes(8))


class Raising(LocalCollectors):
    """What the second worker answers is an exception, if said so."""

    says = False

    def take(self, answer):
        if self.says and answer is self._places[1].asked[0].answer:
            raise OSError("a cable")
        return super().take(answer)


@pytest.mark.parametrize("staleness", [0, 1])
def test_what_the_others_played_beside_an_exception_is_not_lost(staleness):
    envs = answers()
    policy = policy_for(envs)
    pool, safe = (
        kind(policy, envs, seed=5, workers=2, staleness=staleness)
        for kind in (Raising, LocalCollectors)
    )
    for raises in (False, True, True, False):
        pool.says = raises
        if raises:
            with pytest.raises(OSError, match="a cable"):
                pool.collect_episodes(8)
        pool.says = False
        assert_same(pool.collect_episodes(8), safe.collect_episodes(8))


def test_what_cannot_be_shared_is_refused():
    envs = answers(rows=8)
    with pytest.raises(UnmetNeedError, match=r"8 rows in groups of 2 .* among 3 processes"):
        LocalCollectors(policy_for(envs), envs, workers=3)
    with pytest.raises(ValueError, match=r"2 workers cannot share"):
        LocalCollectors(policy_for(envs), envs, workers=2).collect_episodes(6)
    with pytest.raises(ValueError, match="workers is 0"):
        LocalCollectors(policy_for(envs), envs, workers=0)


# --- weights --------------------------------------------------------------------------------------


def test_all_that_is_trained_or_was_written_goes_into_one_buffer():
    policy = policy_for(answers())
    policy.transformer.token_embedding.weight.requires_grad_(False)
    policy.register_buffer(
        "odd", torch.tensor([True, False, True])
    )  # the next begins at an odd byte
    policy.register_buffer("count", torch.tensor(7))
    copied, sent = copy.deepcopy(policy), SentWeights(policy)
    frozen = "transformer.token_embedding.weight"
    assert frozen not in sent.names and "value_head.weight" in sent.names
    move(policy, 1)
    policy.count += 1
    sent.look()
    sent.look()
    assert sent.version == 1 and frozen in sent.names  # it was written all the same
    unpack(sent.packed(), sent.names, copied)
    for (name, one), other in zip(
        policy.state_dict().items(), copied.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_layers_that_are_frozen_are_not_sent():
    policy = policy_for(letters_env(2))
    everything = len(SentWeights(policy).packed())
    policy.transformer.requires_grad_(False)
    sent = SentWeights(policy)
    with torch.no_grad():
        policy.value_head.weight.add_(1)
    sent.look()
    assert len(sent.packed()) < everything / 2


def test_orders_under_way_share_the_weights_and_frozen_ones_that_were_written_are_sent_on():
    """Of a pool that was saved: one buffer for each version, and all that any order had."""
    envs = answers()
    policy = policy_for(envs)
    policy.transformer.requires_grad_(False)
    frozen = "transformer.token_embedding.weight"

    class Counting(LocalCollectors):
        posted = ()

        def post(self, buffer):
            self.posted += (buffer,)
            return buffer

    pool = Counting(policy, envs, seed=5, workers=4, staleness=2)
    for number in range(3):
        pool.collect_episodes(8)
        move(policy, number)
    assert frozen in pool.weights.names and len(pool.posted) == 3
    state = pool.state_dict()
    policies = policy, copy.deepcopy(policy)
    second = Counting(policies[1], envs, seed=5, workers=4, staleness=2)
    second.load_state_dict(state)
    assert len(second.posted) == len(state["weights"]) == 2
    for number in range(4):
        assert_same(second.collect_episodes(8), pool.collect_episodes(8))
        for one in policies:
            move(one, number)

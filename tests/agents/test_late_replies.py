"""Learning where replies come late: rows that wait choose nothing, and lose nothing."""

import asyncio

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from letters import Letters

from agents import PPO, Learner
from agents.collector import Collector
from policies import TransformerPolicy
from textenv import Reply, TextVectorEnv, World

torch.set_num_threads(1)


class Late(World):
    """Says a letter and pays at random, after a while of its own."""

    def begin(self, record, rng):
        self.wait = 0.004 * rng.random()
        return "".join(rng.choice(list("abcd"), 9))

    async def reply(self, turn, rng):
        if turn.number % 2:
            await asyncio.sleep(self.wait)
        said = "".join(rng.choice(list("cd"), 2))
        return Reply(said, float(rng.random()), terminated=bool(rng.random() < 0.3))


def make(world_wait, mode=AutoresetMode.SAME_STEP):
    return TextVectorEnv(
        6,
        world=Late,
        tokenizer=Letters(4, stop=True),
        max_prompt_tokens=9,
        max_new_tokens=18,
        max_turn_tokens=3,
        world_wait=world_wait,
        autoreset_mode=mode,
    )


def policy_for(envs):
    return TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=0)


def sequences(rollout):
    """What happened in each sequence, by its opening, which no two share."""
    found = {}
    for s in range(len(rollout)):
        last = int(rollout.mask[s].nonzero().max())
        found[tuple(rollout.tokens[s, :9].tolist())] = (
            rollout.tokens[s, : last + 1].tolist(),
            rollout.mask[s].nonzero().flatten().tolist(),
            rollout.rewards[s][rollout.mask[s]].tolist(),
            rollout.turns[s][rollout.mask[s]].tolist(),
            float(rollout.scores[s]),
            bool(rollout.terminated[s]),
        )
    return found


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_are_those_of_a_world_that_is_waited_for(mode):
    found = []
    for world_wait in ("all", "async"):
        envs = make(world_wait, mode)
        found.append(sequences(Collector(policy_for(envs), envs, seed=3).collect_episodes(60)))
    both = found[0].keys() & found[1].keys()
    assert len(both) > 20  # in another order, so the last ones may differ
    assert all(found[0][opening] == found[1][opening] for opening in both)


def test_a_rollout_of_steps_keeps_rows_that_wait_open():
    envs = make("async")
    collector = Collector(policy_for(envs), envs, seed=3)
    rollouts = [collector.collect_steps(5) for _ in range(40)]
    # Whatever was paid is in a rollout: nothing is lost between one and the next.
    paid = sum(float(r.rewards[r.mask].sum()) for r in rollouts)
    ended = [float(s) for r in rollouts for s in r.scores[r.finished]]
    running = [float(s) for s in rollouts[-1].scores[~rollouts[-1].finished]]
    waiting = collector._scores[collector._listening].sum()
    still_open = collector._open["rewards"][collector._listening].sum()
    expected = sum(ended) + sum(running) + waiting - still_open
    assert paid == pytest.approx(expected)
    for rollout in rollouts:
        outside = rollout.rewards[~rollout.mask]
        assert not outside.any()


def test_a_policy_learns_with_late_replies_and_its_counts_are_of_choices():
    envs = make("async")
    policy = policy_for(envs)
    learner = Learner(policy, envs, PPO(), n_steps=20, learning_rate=1e-3, seed=0)
    updates = list(learner.updates(total_tokens=600))
    chosen = sum(update.rollout.num_tokens for update in updates)
    assert updates[-1].tokens == chosen < 20 * 6 * len(updates)
    state = learner.collector.state_dict()  # waits for what is late
    again = Collector(policy, make("async"), seed=1)
    again.load_state_dict(state)
    assert np.array_equal(again._listening, learner.collector._listening)
    assert again.collect_steps(4).num_tokens


def test_stable_baselines_refuses_rows_that_wait():
    pytest.importorskip("stable_baselines3")
    from agents.sb3 import to_vec_env

    with pytest.raises(ValueError, match="world_wait is 'async'"):
        to_vec_env(make("async"))

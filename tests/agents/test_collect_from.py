"""Answers from given starts: they go on as the episodes did, and disturb nothing else."""

from collections import Counter
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from letters import Letters

from agents import PPO, Learner
from agents.collector import Collector
from policies import TransformerPolicy
from textenv import Prompt, Reply, Start, TextEnv, TextVectorEnv, World
from textenv.errors import ResetOptionsError, UnmetNeedError
from textenv.testing import exact

torch.set_num_threads(1)
MODES = list(AutoresetMode)
TABLE = np.random.default_rng(3).random((3, 3, 3))


class Chance(World):
    """Replies at random, pays at random, ends at random; now and then it says nothing."""

    def begin(self, record, rng):
        return "".join(rng.choice(list("ab"), 2))

    def reply(self, turn, rng):
        said = "".join(rng.choice(list("cd"), rng.integers(0, 4)))
        return Reply(said, float(rng.random()), terminated=bool(rng.random() < 0.2))


def by_letters(episodes):
    """A reward for each answer of up to three tokens."""
    padded = [(*e.tokens, 0, 0, 0) for e in episodes]
    return [float(TABLE[a % 3, b % 3, c % 3]) for a, b, c, *_ in padded]


def answers(num_envs=4, **options):
    defaults = {"prompts": ["a", "ab"], "reward": by_letters, "max_new_tokens": 3}
    return TextVectorEnv(num_envs, tokenizer=Letters(2, stop=True), **defaults | options)


def conversations(num_envs=4, **options):
    defaults = {"max_prompt_tokens": 2, "max_new_tokens": 14, "max_turn_tokens": 3, "world": Chance}
    tokenizer = Letters(4, stop=True)
    return TextVectorEnv(num_envs, tokenizer=tokenizer, **defaults | options)


def policy_for(envs, seed=0):
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=seed)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.transformer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


def places(rollout):
    """Sequence and place of every chosen token."""
    return [tuple(pair) for pair in rollout.mask.nonzero().tolist()]


# ---------------------------------------------------------------- the same again


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [answers, conversations])
@pytest.mark.parametrize("cut", [False, True])
def test_with_its_own_seed_an_episode_repeats_itself_from_every_place(make, mode, cut):
    envs = make(autoreset_mode=mode)
    collector = Collector(policy_for(envs), envs, seed=1)
    if cut:  # sequences that begin in the middle of an episode, or of a turn
        collector.collect_steps(2)
        rollout = collector.collect_steps(40)
    else:
        rollout = collector.collect_episodes(8)
    over = set(rollout.finished.nonzero().flatten().tolist())
    found = [(s, p) for s, p in places(rollout) if s in over]
    starts = [
        replace(rollout.start(s, p), episode_seed=rollout.starts[s].episode_seed) for s, p in found
    ]
    again = collector.collect_from(starts)
    assert len(again) == len(found) > 10 and again.groups.tolist() == [*range(len(found))]
    for number, (s, p) in enumerate(found):
        end = int(rollout.mask[s].nonzero()[-1]) + 1
        assert int(again.mask[number].nonzero()[-1]) + 1 == end
        assert (again.tokens[number, :end] == rollout.tokens[s, :end]).all()
        assert (again.mask[number, p:end] == rollout.mask[s, p:end]).all()
        assert not again.mask[number, :p].any()
        assert (again.rewards[number, p:end] == rollout.rewards[s, p:end]).all()
        left, right = again.logprobs[number, p:end], rollout.logprobs[s, p:end]
        torch.testing.assert_close(left, right, atol=1e-5, rtol=0)
        assert again.terminated[number] == rollout.terminated[s]
        assert again.texts[number] == rollout.texts[s]


def test_continuations_of_continuations():
    envs = conversations()
    collector = Collector(policy_for(envs), envs, seed=1)
    rollout = collector.collect_episodes(8)
    first = collector.collect_from([rollout.start(*place) for place in places(rollout)])
    found = places(first)
    starts = [
        replace(first.start(s, p), episode_seed=first.starts[s].episode_seed) for s, p in found
    ]
    again = collector.collect_from(starts)
    for number, (s, p) in enumerate(found):
        end = int(first.mask[s].nonzero()[-1]) + 1
        assert (again.tokens[number, :end] == first.tokens[s, :end]).all()
        assert (again.rewards[number, p:end] == first.rewards[s, p:end]).all()


# ---------------------------------------------------------------- nothing else


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [answers, conversations])
def test_the_running_episodes_go_on_as_if_nothing_was(make, mode):
    rollouts = []
    for plays in (False, True):
        envs = make(autoreset_mode=mode)
        collector = Collector(policy_for(envs), envs, seed=2)
        first = collector.collect_episodes(5)
        if plays:
            collector.collect_from([first.start(0, int(first.mask[0].nonzero()[0]))], 7)
        rollouts.append(collector.collect_episodes(10))
    for name, array in rollouts[0].arrays().items():
        if name != "endings":
            torch.testing.assert_close(array, rollouts[1].arrays()[name], equal_nan=True)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_answers_are_in_order_and_no_other_episode_is_played(rows):
    seen = []

    def reward(episodes):
        seen.extend(e.prompt for e in episodes)
        return [1.0] * len(episodes)

    envs = answers(rows, reward=reward)
    collector = Collector(policy_for(envs), envs, seed=0)
    letters = ["a", "b", "ab", "ba", "bb"]
    rollout = collector.collect_from([Start(Prompt(text)) for text in letters], 3)
    assert [start.opening.text for start in rollout.starts] == [t for t in letters for _ in "123"]
    assert rollout.groups.tolist() == [group for group in range(5) for _ in "123"]
    assert sorted(seen) == sorted(letters * 3)  # rows for which nothing is left do not play
    assert rollout.finished.all() and (rollout.rewards.sum(1) == rollout.scores).all()
    # What is sampled depends neither on the rows nor on the order in which they end.
    other = answers(4)
    same = Collector(policy_for(other), other, seed=0)
    again = same.collect_from([Start(Prompt(text)) for text in letters], 3)
    assert (again.tokens[again.mask] == rollout.tokens[rollout.mask]).all()


def test_what_follows_is_distributed_as_the_policy_says():
    """All answers that begin with a letter, against their exact probabilities."""
    options = {"prompts": ["a"], "reward": by_letters, "max_new_tokens": 3}
    envs = answers(64, **options)
    policy = policy_for(envs)
    listed = exact.enumerate_answers(TextEnv(tokenizer=Letters(2, stop=True), **options), "a")
    tokens, mask = torch.from_numpy(listed.tokens), torch.from_numpy(listed.mask)
    with torch.no_grad():
        logprobs = policy.outputs(tokens, mask).logprobs.double().sum(1).numpy()
    inside = listed.tokens[:, 1] == 1
    within = np.exp(logprobs[inside])
    within /= within.sum()
    value = float(within @ listed.rewards[inside])
    start = Start(Prompt("a"), answer=np.array([1]))
    played = Collector(policy, envs, seed=0).collect_from([start], 4000)
    assert abs(played.scores.mean().item() - value) < 4 * played.scores.std().item() / 4000**0.5
    rows = [tuple(row) for row in played.tokens.tolist()]
    width = played.tokens.shape[1]
    for row, share in zip(listed.tokens[inside], within, strict=True):
        count = rows.count(tuple(row[:width].tolist()))
        assert abs(count / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5 + 1e-9


# ---------------------------------------------------------------- wrapped, saved, refused


class Doubled(VectorWrapper):
    """Pays twice."""

    def step(self, actions):
        observations, rewards, *rest = self.env.step(actions)
        return observations, 2 * rewards, *rest


def test_wrappers_hold_for_continuations_too():
    plain, wrapped = answers(), Doubled(answers())
    start = Start(Prompt("ab"))
    one, two = (
        Collector(policy_for(plain), e, seed=0).collect_from([start], 5) for e in (plain, wrapped)
    )
    assert (two.scores == 2 * one.scores).all() and one.scores.any()


@pytest.mark.parametrize("make", [answers, conversations])
def test_answers_from_the_start_of_an_episode_differ(make):
    collector = Collector(policy_for(make()), make(), seed=0)
    rollout = collector.collect_episodes(4)
    played = collector.collect_from(rollout.starts[:2], 8)
    for number in range(2):
        texts = played.texts[8 * number : 8 * number + 8]
        assert texts[0] == rollout.texts[number]  # that episode's own
        assert len(set(texts)) > 1
    again = collector.collect_from(rollout.starts[:2], 8)
    assert (again.tokens == played.tokens).all()


def test_the_number_of_continuations_is_saved():
    def learner():
        envs = answers()
        return Learner(policy_for(envs), envs, PPO(), n_episodes=4, seed=3)

    one, other = learner(), learner()
    start = Start(Prompt("a"))
    one.collector.collect_from([start], 5)
    other.collector.load_state_dict(one.collector.state_dict())
    left, right = (x.collector.collect_from([start], 5) for x in (one, other))
    assert (left.tokens == right.tokens).all()
    fresh = learner().collector.collect_from([start], 5)
    assert fresh.starts[0].episode_seed != left.starts[0].episode_seed


def test_an_environment_that_cannot_play_on():
    task = {"prompts": ["a"], "reward": by_letters, "max_new_tokens": 3}
    env = lambda: TextEnv(tokenizer=Letters(2, stop=True), **task)  # noqa: E731
    envs = SyncVectorEnv([env, env])
    collector = Collector(policy_for(answers()), envs, seed=0)
    rollout = collector.collect_episodes(2)
    assert rollout.starts is None
    with pytest.raises(UnmetNeedError, match="SyncVectorEnv cannot play on from anywhere"):
        collector.collect_from([Start(Prompt("a"))])
    with pytest.raises(UnmetNeedError, match="collect it from a TextVectorEnv"):
        rollout.start(0, 1)


def test_places_and_starts_that_cannot_be_used():
    envs = answers()
    collector = Collector(policy_for(envs), envs, seed=0)
    rollout = collector.collect_episodes(2)
    with pytest.raises(ValueError, match="position 0 of sequence 1 is none of those chosen"):
        rollout.start(1, 0)
    with pytest.raises(ResetOptionsError, match="no start to play on from"):
        collector.collect_from([])
    with pytest.raises(ResetOptionsError, match="nothing is left to generate"):
        collector.collect_from([Start(Prompt("a"), answer=np.array([0, 1, 0]))])
    assert isinstance(envs, gym.vector.VectorEnv)


def test_starts_from_prompts_have_worlds_of_their_own_which_their_answers_share():
    drawn = []

    class Secret(World):
        def begin(self, record, rng):
            drawn.append(int(rng.integers(2**62)))
            return "a"

        def reply(self, turn, rng):
            return Reply(terminated=True)

    envs = conversations(world=Secret, max_prompt_tokens=1)
    collector = Collector(policy_for(envs), envs, seed=1)
    drawn.clear()
    collector.collect_from([Start(Prompt("")), Start(Prompt("")), Start(Prompt(""))], 4)
    assert sorted(Counter(drawn).values()) == [4, 4, 4]

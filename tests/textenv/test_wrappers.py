"""The wrappers of Gymnasium and the processes of Gymnasium and SB3 around our environments."""

import copy
import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import assert_same, number_of_a, single, text, vector
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import (
    Autoreset,
    DtypeObservation,
    FlattenObservation,
    FrameStackObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TimeLimit,
    TransformReward,
)
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from agents.collector import Collector
from policies import TransformerPolicy
from textenv import TextEnv

NAME = "textenv/Generate-v0"
A, B, STOP, PAD = 97, 98, 256, 257
STRINGS = {"prompts": ["x>", "y>"], "reward": "environments:number_of_a", "max_new_tokens": 4}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def counting(**arguments):
    """One that pays 1 for each `a`."""
    return single(**{"reward": number_of_a, **arguments})


def tiny_policy(env):
    return TransformerPolicy.for_env(env, n_layer=1, n_head=1, n_embd=8)


# ---------------------------------------------------------------- TimeLimit


def limited(**arguments):
    return TimeLimit(counting(**arguments), 2)


def test_time_limit_truncates_without_a_finish_reason():
    env = limited()
    env.reset(seed=0)
    assert env.step(A)[1:] == (0.0, False, False, {})
    observation, *result = env.step(A)
    assert text(env.unwrapped, observation) == "x>aa" and result == [0.0, False, True, {}]
    env.reset()
    env.step(A)
    *_, terminated, truncated, info = env.step(STOP)  # the score is paid, whatever the limit
    assert (terminated, truncated, info["finish_reason"]) == (True, True, "stop")


def test_time_limit_by_name():
    env = gym.make(NAME, max_episode_steps=2, **STRINGS)
    env.reset(seed=0)
    assert [env.step(A)[3] for _ in range(2)] == [False, True]
    envs = gym.make_vec(
        NAME,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        wrappers=[functools.partial(TimeLimit, max_episode_steps=2)],
        **STRINGS,
    )
    envs.reset(seed=0)
    assert envs.step([A, STOP])[2:4][0].tolist() == [False, True]
    _, _, terminated, truncated, infos = envs.step([A, A])
    assert truncated.tolist() == [True, False] and not terminated.any()
    assert text(envs.envs[0].unwrapped, infos["final_obs"][0])[1:] == ">aa"


@pytest.mark.parametrize("mode", AutoresetMode)
def test_time_limit_reaches_the_learner_as_a_truncation(mode):
    """The cut text is learned from, and what could have come is bootstrapped from its value."""
    envs = SyncVectorEnv([limited] * 2, autoreset_mode=mode)
    policy = tiny_policy(envs)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    collector = Collector(policy, envs, seed=0)
    rollout = collector.collect_steps(7)
    cut = rollout.truncated
    assert cut.sum() >= 4 and not rollout.terminated.any()  # the byte 256 was not sampled
    texts = rollout.tokens[cut].numpy()
    assert ((texts != PAD).sum(1) == 4).all()
    torch.testing.assert_close(rollout.bootstrap_values[cut], policy.value(texts).float())
    assert rollout.bootstrap_values[cut].abs().min() > 0


# ---------------------------------------------------------------- statistics and rewards


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_statistics_of_a_vector_are_those_of_its_rows(mode):
    envs = vector_wrappers.RecordEpisodeStatistics(
        vector(reward=number_of_a, stop_tokens=[B], autoreset_mode=mode)
    )
    envs.reset(seed=0)
    seen = []
    for actions in [(A, A), (B, A), (A, A), (A, A), (A, B), (A, A), (B, A)]:
        *_, infos = envs.step(np.array(actions))
        for row in np.flatnonzero(infos.get("_episode", [])):
            seen.append((row, infos["episode"]["r"][row], infos["episode"]["l"][row]))
    if mode is AutoresetMode.SAME_STEP:  # row 0: ab, aaaa, b; row 1: aaaa, b
        assert seen == [(0, 1.0, 2), (1, 4.0, 4), (1, 0.0, 1), (0, 4.0, 4), (0, 0.0, 1)]
    else:  # the step that only resets is no step of an episode
        assert seen == [(0, 1.0, 2), (1, 4.0, 4), (0, 3.0, 4)]


def test_transformed_rewards():
    env = TransformReward(counting(max_new_tokens=2), lambda reward: 2 * reward - 1)
    env.reset(seed=0)
    assert [env.step(A)[1] for _ in range(2)] == [-1.0, 3.0]
    envs = vector_wrappers.TransformReward(
        vector(reward=number_of_a, max_new_tokens=2), lambda rewards: 2 * rewards - 1
    )
    rollout = Collector(tiny_policy(envs), envs, seed=0).collect_steps(4)
    ended = rollout.terminated
    assert ended.sum() == 4
    counts = (rollout.tokens[ended] == A).sum(1)
    # -1 for each of two steps and 2 for each `a`
    torch.testing.assert_close(rollout.scores[ended].float(), 2.0 * counts - 2)


def normalised(rewards, ends, gamma=0.99):
    """Rewards over the deviation of the discounted sums so far, beginning with variance 1."""
    sums, total, results = [], 0.0, []
    for reward, end in zip(rewards, ends, strict=True):
        total = total * gamma * (1 - end) + reward
        sums.append(total)
        count, weight = len(sums), 1e-4
        mean = sum(sums) / (count + weight)
        square = sum((s - mean) ** 2 for s in sums) + weight * (1 + mean**2)
        results.append(reward / np.sqrt(square / (count + weight) + 1e-8))
    return results


def test_normalised_rewards():
    env = NormalizeReward(counting(max_new_tokens=2))
    plain = counting(max_new_tokens=2)
    seen, rewards, ends = [], [], []
    for actions in [(A, A), (A, B), (B, B), (A, A)]:
        assert_same(env.reset(seed=0)[0], plain.reset(seed=0)[0])
        for action in actions:
            observation, reward, terminated, _, _ = env.step(action)
            expected = plain.step(action)
            assert_same(observation, expected[0])
            assert terminated == expected[2]
            seen.append(reward)
            rewards.append(expected[1])
            ends.append(terminated)
    assert rewards == [0, 2, 0, 1, 0, 0, 0, 2]
    np.testing.assert_allclose(seen, normalised(rewards, ends), rtol=1e-6)


def test_normalised_rewards_of_a_vector_keep_the_end():
    envs = vector_wrappers.NormalizeReward(vector(reward=number_of_a, max_new_tokens=1))
    envs.reset(seed=0)
    for _ in range(20):
        _, rewards, terminated, _, infos = envs.step(np.array([A, B]))
        assert terminated.all() and rewards[0] > 0 == rewards[1]
        assert infos["final_info"]["text"].tolist() == ["a", "b"]
        ends = infos["final_info"]["reward_components"]["number_of_a"]
        assert ends.tolist() == [1.0, 0.0]  # what the reward said stays there
    assert rewards[0] != 1


# ---------------------------------------------------------------- observations


def test_texts_as_floats_are_read_alike():
    """As SB3 and others hand them over; the ids are exact in float32."""
    plain, env = counting(), DtypeObservation(counting(), np.float32)
    policy = tiny_policy(plain)
    one, other = plain.reset(seed=0)[0], env.reset(seed=0)[0]
    assert other.dtype == np.float32
    for action in (A, B):
        np.testing.assert_array_equal(one, other)
        values = [policy.value(np.stack([observation])) for observation in (one, other)]
        assert torch.equal(*values)
        one, other = plain.step(action)[0], env.step(action)[0]


def test_texts_as_floats_in_a_vector():
    envs = vector_wrappers.DtypeObservation(
        vector(autoreset_mode=AutoresetMode.NEXT_STEP), np.float32
    )
    policy = tiny_policy(envs)
    rollout = Collector(policy, envs, seed=0).collect_steps(6)
    plain = vector(autoreset_mode=AutoresetMode.NEXT_STEP)
    expected = Collector(tiny_policy(plain), plain, seed=0).collect_steps(6)
    assert rollout.tokens.dtype == torch.int64
    assert torch.equal(rollout.tokens, expected.tokens)
    assert torch.equal(rollout.logprobs, expected.logprobs)


def test_flattening_changes_nothing():
    env, plain = FlattenObservation(counting()), counting()
    assert env.observation_space == plain.observation_space
    assert_same(env.reset(seed=0), plain.reset(seed=0))
    assert_same(env.step(A), plain.step(A))


def test_autoreset_goes_on_with_a_new_text():
    env = Autoreset(counting(max_new_tokens=1))
    env.reset(seed=0)
    assert env.step(A)[2] and not env.step(A)[2] and env.step(B)[4]["text"] == "b"


def stacked(**arguments):
    return FrameStackObservation(counting(**arguments), 2)


def test_stacked_frames_are_refused():
    """An observation holds the whole text: stacking would repeat it, and hide its shape."""
    message = r"observations of shape \(2, 6\).*already holds the whole text.*FrameStackObservation"
    vectors = SyncVectorEnv([stacked] * 2)
    for env in (stacked(), vectors):
        with pytest.raises(ValueError, match=message):
            tiny_policy(env)
    with pytest.raises(ValueError, match=r"observations of shape \(2, 6\)"):
        Collector(tiny_policy(counting()), vectors)
    texts = gym.make(NAME, **STRINGS)
    texts.observation_space = gym.spaces.Dict(text=texts.observation_space)
    with pytest.raises(ValueError, match="observations of shape None"):
        tiny_policy(texts)


# ---------------------------------------------------------------- processes


ACTIONS = [(A, B), (B, B), (STOP, A), (A, A), (B, STOP), (A, A), (A, B)]


def test_environments_in_processes_of_gymnasium():
    """Made there from the class itself, with masks and columns of several kinds in the infos."""
    make = functools.partial(
        TextEnv,
        prompts=["x>", "y>"],
        reward="environments:number_of_a",
        max_new_tokens=3,
        min_new_tokens=2,
    )
    ours = SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    theirs = AsyncVectorEnv(
        [make] * 2, context="forkserver", autoreset_mode=AutoresetMode.NEXT_STEP
    )
    try:
        assert_same(theirs.reset(seed=4), ours.reset(seed=4))
        for actions in ACTIONS:
            assert_same(theirs.step(np.array(actions)), ours.step(np.array(actions)))
        assert theirs.get_attr("pad_token") == (PAD, PAD)
        assert_same(theirs.call("action_masks"), ours.call("action_masks"))
    finally:
        theirs.close()


def test_environments_in_processes_of_sb3():
    make = functools.partial(TextEnv, **STRINGS, min_new_tokens=1)
    ours = DummyVecEnv([make] * 2)
    theirs = SubprocVecEnv([make] * 2, start_method="forkserver")
    try:
        for envs in (ours, theirs):
            envs.seed(4)
        np.testing.assert_array_equal(theirs.reset(), ours.reset())
        for actions in ACTIONS:
            observations, rewards, dones, infos = theirs.step(np.array(actions))
            expected = ours.step(np.array(actions))
            assert_same(observations, expected[0])
            np.testing.assert_array_equal(rewards, expected[1])
            assert_same(dones, expected[2])
            assert_same(list(infos), expected[3])
        masks = [envs.env_method("action_masks") for envs in (theirs, ours)]
        assert_same(*masks)
        assert theirs.get_attr("max_new_tokens") == [4, 4]
    finally:
        theirs.close()


def test_the_end_of_an_episode_reaches_sb3():
    envs = DummyVecEnv([lambda: limited(prompts=["x"])])
    envs.reset()
    envs.step(np.array([A]))
    observations, _, dones, (info,) = envs.step(np.array([B]))
    assert dones.all() and observations[0].tolist()[:2] == [ord("x"), PAD]
    assert info["terminal_observation"].tolist()[:4] == [ord("x"), A, B, PAD]
    assert info["TimeLimit.truncated"] is True


# ---------------------------------------------------------------- specs


class CopiesItself:
    """A reward that can be copied, as a TorchScript module can, and counts how often it is."""

    copies = 0

    def __call__(self, episodes):
        return [1.0] * len(episodes)

    def __deepcopy__(self, memo):
        type(self).copies += 1
        return CopiesItself()


class RefusesCopies(CopiesItself):
    def __deepcopy__(self, memo):
        raise TypeError("weights are not copied")


@pytest.mark.parametrize("kind", [CopiesItself, RefusesCopies])
def test_a_reward_that_defines_its_copies_is_not_copied(kind, monkeypatch):
    monkeypatch.setattr(kind, "copies", 0)
    reward = kind()
    env = gym.make(NAME, prompts=["x"], reward=reward, max_new_tokens=1)
    env = RecordEpisodeStatistics(TimeLimit(env, 5))
    again = gym.make(env.spec)  # the wrappers are part of it
    envs = gym.make_vec(NAME, num_envs=2, prompts=["x"], reward=reward, max_new_tokens=1)
    copies = gym.make_vec(copy.deepcopy(envs.spec))
    for made in (env, again):
        made.reset(seed=0)
        *_, info = made.step(A)
        assert info["episode"]["r"] == 1.0 and list(info["reward_components"]) == [kind.__name__]
    copies.reset(seed=0)
    assert copies.step([A, B])[1].tolist() == [1.0, 1.0]
    assert kind.copies == 0


def test_a_spec_of_strings_keeps_its_wrappers_in_json():
    env = RecordEpisodeStatistics(TimeLimit(gym.make(NAME, **STRINGS), 2))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert [type(again), type(again.env)] == [RecordEpisodeStatistics, TimeLimit]
    for made in (env, again):
        made.reset(seed=0)
        made.step(A)
        *_, truncated, info = made.step(A)
        assert truncated and info["episode"]["l"] == 2

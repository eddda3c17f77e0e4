"""Making the environment by its name: specs, wrappers, copies and processes."""

import copy
import functools
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from environments import REWARDS, assert_same, nothing, share_of_vowels, single, vector
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVectorStatistics

import textenv
from textenv.rewards import per_text, shared, weighted
from textenv.tokenizers import HuggingFaceTokenizer, train_bpe

NAME = "textenv/Generate-v0"
STRINGS = {
    "prompts": ["the ", "a "],
    "reward": "environments:share_of_vowels",
    "tokenizer": "bytes",
    "max_new_tokens": 3,
}


class Network:
    """A callable reward that holds something large, and counts how often it is copied."""

    def __init__(self):
        self.weights = np.zeros(10)
        self.copies = 0

    def __call__(self, episodes):
        return [1.0] * len(episodes)

    def score(self, episodes):
        return [2.0] * len(episodes)

    def __reduce_ex__(self, protocol):
        raise AssertionError("the reward was copied")


def run(env, steps=10):
    """All that comes back from some steps with the action 101."""
    results = [env.reset(seed=3)]
    for _ in range(steps):
        results.append(env.step(101))
        if results[-1][2]:
            results.append(env.reset())
    return results


# ---------------------------------------------------------------- specs


def test_both_entry_points_are_registered():
    spec = gym.registry[NAME]
    assert spec.entry_point == "textenv.env:TextEnv"
    assert spec.vector_entry_point == "textenv.vector:TextVectorEnv"
    assert spec.max_episode_steps is None  # the token budget ends an episode, not a TimeLimit
    before = dict(gym.registry)
    textenv.register_environments()  # once more does no harm
    assert gym.registry == before


def test_a_spec_of_strings_goes_through_json():
    env = gym.make(NAME, **STRINGS)
    text = env.spec.to_json()
    assert json.loads(text)["kwargs"] == STRINGS
    again = gym.make(EnvSpec.from_json(text))
    assert again.spec == env.spec
    assert_same(run(env), run(again))
    assert run(env)[3][1] == 1.0  # "eee": all vowels


def test_the_spec_of_a_vector_goes_through_json():
    envs = gym.make_vec(NAME, num_envs=3, autoreset_mode="NextStep", **STRINGS)
    again = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()))
    assert again.num_envs == 3 and again.autoreset_mode is AutoresetMode.NEXT_STEP
    assert_same(envs.reset(seed=1), again.reset(seed=1))


def test_the_spec_of_the_inner_environment_makes_it_with_a_render_mode():
    env = gym.make(NAME, **STRINGS).unwrapped
    for mode in env.metadata["render_modes"]:
        assert env.spec.make(render_mode=mode).render_mode == mode
    assert env.spec.kwargs == STRINGS


def test_an_environment_made_by_hand_has_no_spec():
    assert single().spec is None and vector().spec is None
    assert textenv.TextEnv.spec is None and textenv.TextVectorEnv.spec is None


# ---------------------------------------------------------------- rewards are not copied


REWARD_KINDS = {
    "object": lambda network: network,
    "method": lambda network: network.score,
    "partial": lambda network: functools.partial(network.score),
    "shared": shared,
    "per_text": lambda network: per_text(lambda text: network.weights.sum()),
    "weighted": lambda network: weighted(one=(1.0, network), two=(0.5, network.score)),
}


@pytest.mark.parametrize("kind", REWARD_KINDS)
def test_copies_of_the_spec_share_the_reward(kind):
    network = Network()
    with pytest.raises(AssertionError, match="was copied"):
        copy.deepcopy(network)
    reward = REWARD_KINDS[kind](network)

    env = gym.make(NAME, prompts=["x"], reward=reward, max_new_tokens=1)
    spec = env.spec  # deep-copied by the wrappers
    again = gym.make(spec)  # and once more here
    env.reset(seed=0)
    again.reset(seed=0)
    assert_same(env.step(65), again.step(65))

    envs = gym.make_vec(NAME, num_envs=2, prompts=["x"], reward=reward, max_new_tokens=1)
    vectors_again = gym.make_vec(copy.deepcopy(envs.spec))
    envs.reset(seed=0)
    vectors_again.reset(seed=0)
    assert_same(envs.step([65, 66]), vectors_again.step([65, 66]))


def test_a_reward_keeps_its_name_when_it_is_shared():
    env = gym.make(NAME, prompts=["x"], reward=Network(), max_new_tokens=1)
    names = []
    for made in (env, gym.make(env.spec)):
        made.reset(seed=0)
        names += made.step(65)[4]["reward_components"]
    assert names == ["Network", "Network"]


def test_a_function_stays_as_it_is_in_the_spec():
    for reward in (nothing, "environments:nothing", REWARDS["both"]):
        env = gym.make(NAME, prompts=["x"], reward=reward)
        assert env.unwrapped.spec.kwargs["reward"] is reward
        assert env.spec.kwargs["reward"] is reward


# ---------------------------------------------------------------- wrappers


def test_order_of_the_wrappers():
    env = gym.make(NAME, **STRINGS)
    assert type(env) is OrderEnforcing
    assert type(env.env) is PassiveEnvChecker
    assert type(env.env.env) is textenv.TextEnv
    with pytest.raises(gym.error.ResetNeeded):
        env.step(101)


def test_wrappers_of_gymnasium_count_whole_episodes():
    env = RecordEpisodeStatistics(gym.make(NAME, **STRINGS))
    infos = [result[4] for result in run(env) if len(result) == 5 and result[2]]
    assert len(infos) == 3 and all(info["episode"]["l"] == 3 for info in infos)
    assert all(info["episode"]["r"] == 1.0 and info["text"] == "eee" for info in infos)

    envs = RecordVectorStatistics(gym.make_vec(NAME, num_envs=2, **STRINGS))
    envs.reset(seed=0)
    for _ in range(3):
        *_, infos = envs.step(np.array([101, 102]))
    assert infos["episode"]["l"].tolist() == [3, 3]
    assert infos["episode"]["r"].tolist() == [1.0, 0.0]
    assert infos["final_info"]["text"].tolist() == ["eee", "fff"]


# ---------------------------------------------------------------- make_vec and processes


def test_make_vec_is_native_by_default():
    envs = gym.make_vec(NAME, num_envs=2, **STRINGS)
    assert type(envs) is textenv.TextVectorEnv
    assert envs.autoreset_mode is AutoresetMode.SAME_STEP


def test_make_vec_with_gymnasiums_own_vector():
    theirs = gym.make_vec(
        NAME,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **STRINGS,
    )
    assert type(theirs) is SyncVectorEnv
    ours = gym.make_vec(NAME, num_envs=2, **STRINGS)
    assert_same(ours.reset(seed=5), theirs.reset(seed=5))
    for step in range(7):
        actions = np.array([97 + step, 98])
        assert_same(ours.step(actions), theirs.step(actions))


def test_in_processes_of_its_own():
    """Everything is pickled on its way there and back; spawned, as after torch has started."""
    theirs = AsyncVectorEnv(
        [lambda: gym.make(f"textenv:{NAME}", **STRINGS)] * 2,  # imports textenv over there
        context="spawn",
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    try:
        ours = gym.make_vec(NAME, num_envs=2, **STRINGS)
        assert_same(ours.reset(seed=5), theirs.reset(seed=5))
        for step in range(7):
            actions = np.array([97 + step, 98])
            assert_same(ours.step(actions), theirs.step(actions))
    finally:
        theirs.close()


TOKENIZERS = {
    "bytes": lambda: "bytes",
    "own": lambda: train_bpe(["the cat and the hat and the bat"] * 3, 262),
    "hugging_face": lambda: HuggingFaceTokenizer(hub_tokenizer()),
}


def hub_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("make", [single, vector])
def test_a_copy_in_the_middle_of_an_episode_goes_on_alone(make, tokenizer, copier):
    env = make(
        prompts=["one", "two"],
        reward=share_of_vowels,
        tokenizer=TOKENIZERS[tokenizer](),
        max_new_tokens=3,
        min_new_tokens=1,
    )
    action = np.int64(101) if make is single else np.array([101, 102])
    env.reset(seed=0)
    env.step(action)
    twin = copier(env)
    one = [env.step(action), env.step(action), env.reset(), env.step(action)]
    other = [twin.step(action), twin.step(action), twin.reset(), twin.step(action)]
    assert_same(one, other)


def test_a_made_environment_pickles_with_its_spec():
    env = gym.make(NAME, **STRINGS)
    again = pickle.loads(pickle.dumps(env))
    assert again.spec == env.spec and again.unwrapped.spec == env.unwrapped.spec
    assert_same(run(env), run(again))

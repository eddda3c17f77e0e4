"""The vector environment against N single ones, stepped by hand and by Gymnasium."""

import copy
import json

import numpy as np
import pytest
from environments import REWARDS, assert_same, nothing, single, vector
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import TextEnv, TextVectorEnv
from textenv.errors import CheckpointError, VocabularyMismatchError
from textenv.rewards import dense, weighted

MODES = list(AutoresetMode)
# Few different tokens, so that episodes stop by chance; 256 is the vocabulary's own stop token.
TOKENS = np.array([0, 1, 97, 255, 256])


def noisy_prompt(rng):
    """Prompts made up by a function, with a column."""
    return {"prompt": "é" * rng.integers(1, 4), "weight": float(rng.integers(1, 5))}


@st.composite
def arguments(draw):
    """Arguments of an environment: short episodes of every kind."""
    max_new_tokens = draw(st.integers(1, 6))
    prompt = st.one_of(
        st.text(min_size=1, max_size=4).map(lambda text: {"prompt": text}),
        st.builds(
            lambda ids, weight: {"tokens": ids, "weight": weight},
            st.lists(st.integers(0, 256), min_size=1, max_size=5),
            st.integers(1, 9),
        ),
    )
    made = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": draw(st.integers(0, max_new_tokens)),
        "stop_tokens": draw(st.sampled_from([None, (), (0,), (97, 255)])),
        "forbidden_tokens": draw(st.sampled_from([(), (1, 2), (97,)])),
        "budget": draw(st.sampled_from(["terminate", "truncate"])),
        "reward": REWARDS[draw(st.sampled_from(sorted(REWARDS)))],
    }
    if draw(st.booleans()):
        return made | {"prompts": noisy_prompt, "max_prompt_tokens": 8}
    return made | {"prompts": draw(st.lists(prompt, min_size=1, max_size=4))}


runs = given(
    arguments=arguments(),
    num_envs=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    actions_seed=st.integers(0, 2**31),
)


def random_actions(seed, steps, num_envs):
    return np.random.default_rng(seed).choice(TOKENS, size=(steps, num_envs))


@settings(max_examples=60)
@runs
def test_it_equals_single_environments(arguments, num_envs, seed, actions_seed):
    envs = TextVectorEnv(num_envs, **arguments, autoreset_mode=AutoresetMode.DISABLED)
    singles = [TextEnv(**arguments) for _ in range(num_envs)]
    observations, infos = envs.reset(seed=seed)
    for row, env in enumerate(singles):
        observation, info = env.reset(seed=seed + row)
        np.testing.assert_array_equal(observations[row], observation)
        assert infos["prompt"][row] == info["prompt"]
    for actions in random_actions(actions_seed, 12, num_envs):
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        for row, env in enumerate(singles):
            observation, reward, is_terminated, is_truncated, info = env.step(actions[row])
            np.testing.assert_array_equal(observations[row], observation)
            assert (rewards[row], terminated[row], truncated[row]) == (
                reward,
                is_terminated,
                is_truncated,
            )
            np.testing.assert_array_equal(envs.action_masks()[row], env.action_masks())
            for key in ("finish_reason", "text", "reward_components"):
                assert (key in info) == bool(key in infos and infos[f"_{key}"][row])
            for name, value in info.get("reward_components", {}).items():
                assert infos["reward_components"][name][row] == value
        over = terminated | truncated
        if over.any():
            observations, _ = envs.reset(options={"reset_mask": over})
            for row in over.nonzero()[0]:
                observation, _ = singles[row].reset()
                np.testing.assert_array_equal(observations[row], observation)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40)
@runs
def test_it_equals_gymnasiums_vector(mode, arguments, num_envs, seed, actions_seed):
    ours = TextVectorEnv(num_envs, **arguments, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: TextEnv(**arguments)] * num_envs, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
    for actions in random_actions(actions_seed, 15, num_envs):
        result = ours.step(actions)
        assert_same(result, theirs.step(actions))
        over = result[2] | result[3]
        if mode is AutoresetMode.DISABLED and over.any():
            one = ours.reset(options={"reset_mask": over})
            other = theirs.reset(options={"reset_mask": over})
            # Masks come for all rows, since the next step needs them all; theirs for these alone.
            for infos in (one[1], other[1]):
                masks = infos.pop("action_mask", None)
                infos.pop("_action_mask", None)
                assert masks is None or masks[over].any(axis=1).all()
            assert_same(one, other)


@settings(max_examples=25)
@given(
    arguments=arguments(),
    mode=st.sampled_from([AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]),
    group_size=st.sampled_from([1, 2]),
    steps=st.integers(0, 8),
    actions_seed=st.integers(0, 2**31),
)
def test_a_saved_state_goes_on_identically(arguments, mode, group_size, steps, actions_seed):
    """Saved in the middle of episodes, restored in an environment that was never reset."""
    envs, restored = (
        TextVectorEnv(4, **arguments, autoreset_mode=mode, group_size=group_size) for _ in range(2)
    )
    observations, _ = envs.reset(seed=actions_seed)
    actions = random_actions(actions_seed, steps + 10, 4)
    for t in range(steps):
        observations = envs.step(actions[t])[0]
    state = envs.state_dict()
    kept = copy.deepcopy(state)
    np.testing.assert_array_equal(restored.load_state_dict(state), observations)
    for t in range(steps, steps + 10):
        assert_same(restored.step(actions[t]), envs.step(actions[t]))
    assert_same(state, kept)  # neither environment has written into it
    assert_same(envs.reset(), restored.reset())


def test_a_state_is_arrays_and_json():
    envs = vector(prompts=[{"prompt": "x", "n": np.int64(3), "pair": (1, 2)}])
    envs.reset(seed=0)

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return value.tolist() if isinstance(value, np.ndarray) else value

    assert json.loads(json.dumps(plain(envs.state_dict()))) == plain(envs.state_dict())


def test_the_single_environment_has_a_state_too():
    env, restored = (single(prompts=["a", "b", "c"]) for _ in range(2))
    env.reset(seed=3)
    env.step(65)
    observation = restored.load_state_dict(env.state_dict())
    assert observation.tolist()[1:3] == [65, env.pad_token]
    assert_same(env.step(66), restored.step(66))
    assert_same(env.reset(), restored.reset())


def test_a_state_of_another_environment_is_refused():
    state = vector(2).state_dict()
    for other in (vector(3), vector(2, max_new_tokens=9), vector(2, reward=REWARDS["both"])):
        with pytest.raises(CheckpointError, match="use the same num_envs"):
            other.load_state_dict(state)
    with pytest.raises(VocabularyMismatchError, match="bytes"):
        vector(2).load_state_dict(state | {"vocabulary": "0123"})


# ---------------------------------------------------------------- groups


@settings(max_examples=30)
@given(
    group_size=st.sampled_from([1, 2, 3, 6]),
    mode=st.sampled_from([AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]),
    seed=st.integers(0, 2**31),
)
def test_every_prompt_goes_to_as_many_rows_as_a_group_has(group_size, mode, seed):
    """To whichever of the group's rows start next: no row runs ahead, however quick it is."""
    envs = vector(
        6,
        prompts=lambda rng: rng.bytes(4).hex(),
        max_prompt_tokens=8,
        group_size=group_size,
        autoreset_mode=mode,
    )
    starts = [[] for _ in range(6 // group_size)]
    prompt_of, number_of = [None] * 6, {}
    ended = []

    def note(infos):
        ends = infos.get("final_info", infos)
        for row in ends.get("_group", np.zeros(0)).nonzero()[0]:
            number = int(ends["group"][row])
            ended.append(number)
            assert number_of.setdefault(number, prompt_of[row]) == prompt_of[row]
        for row in infos.get("_prompt", np.zeros(0)).nonzero()[0]:
            prompt_of[row] = infos["prompt"][row]
            starts[row // group_size].append(prompt_of[row])

    note(envs.reset(seed=seed)[1])
    for actions in random_actions(seed, 30, 6):
        note(envs.step(actions)[4])
        unfinished = [n for n in set(ended) if ended.count(n) < group_size]
        assert len(unfinished) <= 6  # no more than rows are running

    prompts = []
    for of_group in starts:
        assert len(of_group) > 5 * group_size
        whole = len(of_group) // group_size
        chunks = [of_group[n * group_size : (n + 1) * group_size] for n in range(whole)]
        assert all(len(set(chunk)) == 1 for chunk in chunks)
        prompts += [chunk[0] for chunk in chunks]
    assert len(set(prompts)) == len(prompts)
    if group_size > 1:
        assert min(ended) >= 0 and max(map(ended.count, ended)) == group_size


def test_groups_agree_with_gymnasiums_vector_seeded_alike():
    # Answers of equal length: the rows of a group start together, as single environments do.
    arguments = {"prompts": ["a", "b", "c", "d", "e"], "stop_tokens": [], "max_new_tokens": 4}
    ours = vector(4, group_size=2, **arguments)
    theirs = SyncVectorEnv(
        [lambda: TextEnv(reward=nothing, **arguments)] * 4,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    ours.reset(seed=[7, 8, 9, 10])
    theirs.reset(seed=[7, 7, 9, 9])  # a group has its first row's seed
    for actions in random_actions(0, 20, 4):
        one, other = ours.step(actions), theirs.step(actions)
        one[4].get("final_info", {}).pop("group", None)
        one[4].get("final_info", {}).pop("_group", None)
        if "episode_seed" in one[4]:  # answers to one prompt have random numbers of their own
            assert (one[4].pop("episode_seed") != other[4].pop("episode_seed")).any()
        assert_same(one, other)


def test_an_episode_started_from_options_is_in_no_group():
    envs = vector(4, group_size=2, max_new_tokens=1)
    envs.reset(seed=0)
    envs.reset(options={"prompt": "y", "reset_mask": np.array([True, False, False, False])})
    infos = envs.step([0, 0, 0, 0])[4]["final_info"]
    assert infos["group"].tolist() == [-1, 0, 1, 1]
    assert envs.step([0, 0, 0, 0])[4]["final_info"]["group"].tolist() == [2, 2, 3, 3]


# ---------------------------------------------------------------- what the caller owns


def test_what_is_returned_is_the_callers():
    """Nothing that was returned changes later, nor does writing into it change the environment."""
    envs = vector(2, min_new_tokens=2)
    first = envs.reset(seed=0)
    kept = copy.deepcopy(first)
    second = envs.step([65, 66])
    assert_same(first, kept)
    for array in second[:4]:
        array[...] = 0
    with pytest.raises(ValueError, match="read-only"):  # rows may share one in memory
        second[4]["action_mask"][...] = 0
    observations, *_, infos = envs.step([67, 68])
    assert observations[:, 2:5].tolist() == [[65, 67, 257], [66, 68, 257]]
    assert infos["action_mask"].all()


def test_flags_and_the_masks_of_infos_are_apart():
    envs = vector(2, max_new_tokens=1)
    envs.reset(seed=0)
    _, _, terminated, _, infos = envs.step([65, 66])
    terminated[...] = False
    infos["_final_obs"][...] = False
    infos["final_info"]["_text"][...] = False
    assert infos["_final_info"].all() and infos["_prompt"].all()
    assert infos["final_info"]["_finish_reason"].all()


def test_a_dense_reward_may_keep_and_change_what_it_was_given():
    batches, ends = [], []

    def spoils(batch):
        batches.append(batch)
        values = batch.actions * 1.0
        batch.tokens[...] = 0
        batch.actions[...] = 0
        batch.lengths[...] = 0
        batch.prompt_lengths[...] = 0
        batch.ended[...] = True
        return values

    def note(episodes):
        ends.extend(e.tokens.tolist() for e in episodes)
        return [0.0] * len(episodes)

    envs = vector(2, reward=weighted(spoils=(1.0, dense(spoils)), note=(1.0, note)))
    envs.reset(seed=0)
    for t in range(4):
        actions = np.array([10 + t, 20 + t])
        _, rewards, terminated, *_ = envs.step(actions)
        assert actions.tolist() == rewards.tolist() == [10.0 + t, 20.0 + t]
        assert terminated.tolist() == [t == 3, t == 3]
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]
    assert ends == [[10, 11, 12, 13], [20, 21, 22, 23]]


def test_any_integer_dtype_will_do_for_actions():
    for dtype in (np.int64, np.int32, np.uint8, np.uint64):
        envs = vector(2)
        envs.reset(seed=0)
        assert envs.step(np.array([65, 66], dtype=dtype))[0][:, 2].tolist() == [65, 66]
    assert envs.step([67, 68])[0][:, 3].tolist() == [67, 68]


@pytest.mark.parametrize("fewest", [0, 4])
@pytest.mark.parametrize("stop_tokens", [[1], []])
def test_no_episode_ends_before_it_may(fewest, stop_tokens):
    envs = TextVectorEnv(
        3,
        prompts=["a", "bc"],
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer="bytes",
        max_new_tokens=7,
        min_new_tokens=fewest,
        stop_tokens=stop_tokens,
    )
    envs.reset(seed=0)
    generator, soonest, gaps = np.random.default_rng(0), 0, set()
    for step in range(1, 60):
        gaps.add(envs.steps_to_an_end)
        soonest = max(soonest, step - 1 + envs.steps_to_an_end)
        stops = envs.action_masks()[:, 1] & (generator.random(3) < 0.5)
        *_, terminated, truncated, _ = envs.step(np.where(stops, 1, 99))
        if (terminated | truncated).any():
            assert step >= soonest
            soonest = 0
    assert max(gaps) == (7 if not stop_tokens else max(fewest, 1))

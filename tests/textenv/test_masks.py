"""Action masks: minimum length, forbidden tokens, that they are advice; and what ends an answer."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from environments import nothing, single, vector
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from letters import Letters

from textenv.errors import NoStopTokenWarning

V, STOP = 257, 256


def masked(env) -> list[int]:
    """Tokens that are ruled out now."""
    return (~env.action_masks()).nonzero()[-1].tolist()


def test_nothing_is_masked_by_default_and_nothing_reported():
    env = single()
    _, info = env.reset(seed=0)
    assert masked(env) == [] and "action_mask" not in info
    assert "action_mask" not in env.step(65)[4]


def test_stop_tokens_wait_for_the_minimum_length():
    env = single(min_new_tokens=2, stop_tokens=[3, 4], max_new_tokens=4)
    _, info = env.reset(seed=0)
    for expected in ([3, 4], [3, 4], [], []):  # before the 1st, 2nd, 3rd and 4th token
        assert masked(env) == expected
        assert info["action_mask"].dtype == bool and info["action_mask"].shape == (V,)
        np.testing.assert_array_equal(info["action_mask"], env.action_masks())
        info = env.step(65)[4]


def test_an_answer_of_exactly_the_minimum_length_can_be_had():
    """The stop token counts: it may be the token after the minimum, not the last of it."""
    env = single(min_new_tokens=1, stop_tokens=[3])
    env.reset(seed=0)
    assert masked(env) == [3]
    env.step(65)
    assert masked(env) == []
    assert env.step(3)[4]["text"] == "A"


def test_a_minimum_of_the_whole_budget_masks_to_the_end():
    env = single(min_new_tokens=3, max_new_tokens=3)
    env.reset(seed=0)
    for _ in range(3):
        assert masked(env) == [STOP]
        _, _, terminated, _, info = env.step(65)
    assert terminated and info["finish_reason"] == "length"


def test_forbidden_tokens_are_masked_always():
    env = single(forbidden_tokens=[7, 8], min_new_tokens=1)
    env.reset(seed=0)
    assert masked(env) == [7, 8, STOP]
    env.step(65)
    assert masked(env) == [7, 8]


def test_a_forbidden_stop_token():
    env = single(forbidden_tokens=[STOP], min_new_tokens=1)
    env.reset(seed=0)
    env.step(65)
    assert masked(env) == [STOP]


def test_no_minimum_without_stop_tokens():
    env = single(min_new_tokens=2, stop_tokens=[])
    assert "action_mask" not in env.reset(seed=0)[1] and masked(env) == []


def test_masks_are_advice():
    """A masked token that is chosen all the same is carried out: random agents must not fail."""
    env = single(min_new_tokens=3, forbidden_tokens=[65])
    env.reset(seed=0)
    observation, *_ = env.step(65)
    assert observation[2] == 65
    _, _, terminated, _, info = env.step(STOP)
    assert terminated and info["finish_reason"] == "stop" and info["text"] == "A"


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_random_actions_never_fail(mode):
    envs = vector(3, min_new_tokens=3, forbidden_tokens=range(200), autoreset_mode=mode)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(200):
        *_, terminated, truncated, infos = envs.step(envs.action_space.sample())
        assert infos["action_mask"].any(axis=1).all()  # a policy can always choose something
        np.testing.assert_array_equal(infos["action_mask"], envs.action_masks())
        over = terminated | truncated
        if mode is AutoresetMode.DISABLED and over.any():
            infos = envs.reset(options={"reset_mask": over})[1]
            assert infos["_action_mask"].all()
            np.testing.assert_array_equal(infos["action_mask"], envs.action_masks())


def test_rows_have_masks_of_their_own():
    envs = vector(2, prompts=["x"], min_new_tokens=2, max_prompt_tokens=3)
    envs.reset(options={"tokens": [[1], [1, 65, 66]], "prompt_length": [1, 1]})
    assert envs.action_masks()[:, STOP].tolist() == [False, True]
    assert envs.step([65, 65])[4]["action_mask"][:, STOP].tolist() == [False, True]
    assert envs.step([65, 65])[4]["action_mask"][:, STOP].tolist() == [True, False]  # 1 restarted


def test_the_final_info_keeps_the_final_mask():
    envs = vector(2, min_new_tokens=1, max_new_tokens=2, forbidden_tokens=[5])
    envs.reset(seed=0)
    envs.step([65, 65])
    infos = envs.step([65, 65])[4]
    assert infos["final_info"]["action_mask"][:, [5, STOP]].tolist() == [[False, True]] * 2
    assert infos["action_mask"][:, [5, STOP]].tolist() == [[False, False]] * 2


def test_masks_through_the_wrappers_of_gym_make():
    """As sb3-contrib's MaskablePPO asks for them."""
    env = gym.make("textenv/Generate-v0", prompts=["x"], reward=nothing, min_new_tokens=1)
    env.reset(seed=0)
    assert env.get_wrapper_attr("action_masks")().sum() == V - 1
    envs = gym.make_vec(
        "textenv/Generate-v0",
        num_envs=2,
        vectorization_mode="sync",
        prompts=["x"],
        reward=nothing,
        min_new_tokens=1,
    )
    envs.reset(seed=0)
    assert [mask.sum() for mask in envs.call("action_masks")] == [V - 1, V - 1]


def test_sampling_under_the_mask_reaches_the_minimum_length():
    """Gymnasium's own masked sampling takes the mask as it is, once it is int8."""
    env = single(min_new_tokens=4, stop_tokens=list(range(250)), max_new_tokens=6)
    env.action_space.seed(0)
    lengths = set()
    for _ in range(20):
        _, info = env.reset()
        over, length = False, 0
        while not over:
            mask = info["action_mask"].astype(np.int8)
            _, _, over, _, info = env.step(env.action_space.sample(mask=mask))
            length += 1
        lengths.add(length)
    assert min(lengths) == 5  # four tokens and the stop token


# --- allowed tokens


def test_allowed_tokens_leave_the_stop_token():
    env = single(allowed_tokens=[65, 66], max_new_tokens=9)
    _, info = env.reset(seed=0)
    assert info["action_mask"].nonzero()[0].tolist() == [65, 66, STOP]
    env = single(allowed_tokens=[65, 66], forbidden_tokens=[66, STOP])
    assert env.action_masks().nonzero()[0].tolist() == [65]


def test_no_token_may_be_left_out_of_all():
    with pytest.raises(ValueError, match=r"forbidden_tokens and allowed_tokens exclude 257 of 257"):
        single(allowed_tokens=[], forbidden_tokens=[STOP])
    with pytest.raises(ValueError, match=r"allowed_tokens holds 257; tokens are 0 to 256"):
        single(allowed_tokens=[257])


def test_masks_and_ends_come_back_from_a_spec():
    arguments = {"allowed_tokens": [65, 66], "stop_tokens": [3, 4], "forbidden_tokens": [66]}
    env = gym.make("textenv/Generate-v0", prompts=["x"], reward="environments:nothing", **arguments)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.stop_tokens == (3, 4)
    assert again.unwrapped.action_masks().nonzero()[0].tolist() == [3, 4, 65]


# --- a vocabulary that has no stop token


def test_a_vocabulary_without_a_stop_token_is_spoken_of():
    with pytest.warns(NoStopTokenWarning, match=r"'letters' has no stop token.*stop_tokens=\(\)"):
        vector(2, tokenizer=Letters(5), prompts=["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vector(2, tokenizer=Letters(5), prompts=["a"], stop_tokens=()).stop_tokens == ()
        assert vector(2, tokenizer=Letters(5), prompts=["a"], stop_tokens=[1]).stop_tokens == (1,)
        assert vector(2, tokenizer=Letters(5, stop=True), prompts=["a"]).stop_tokens == (5,)


def test_it_is_said_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            single(tokenizer=Letters(5), prompts=["a"])
    assert len(said) == 1


def test_rows_with_one_mask_share_it_in_memory_and_others_do_not():
    """Copied for each row, masks of a large vocabulary would take longer than all the rest."""
    envs = vector(3, forbidden_tokens=[5])
    _, infos = envs.reset(seed=0)
    assert infos["action_mask"].strides[0] == 0 and not infos["action_mask"][:, 5].any()
    envs = vector(2, min_new_tokens=1)
    _, infos = envs.reset(seed=0)
    assert not infos["action_mask"][:, 256].any()
    *_, infos = envs.step([65, 66])
    assert infos["action_mask"].strides[0] == 0 and infos["action_mask"].all()

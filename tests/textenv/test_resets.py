"""Starting from a given prompt, from token ids, or in the middle of an answer."""

import numpy as np
import pytest
from environments import REWARDS, assert_same, columns_and_ids, nothing, single, text, vector
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import Prompt
from textenv.errors import EmptyPromptsError, PromptError, PromptTooLongError, ResetOptionsError

PAD = 257


def texts(envs, observations):
    return [text(envs, observation) for observation in observations]


def seen_by_reward(**arguments):
    """Environment arguments whose reward notes its episodes, and the list of those."""
    episodes = []

    def note(given):
        episodes.extend(given)
        return [0.0] * len(given)

    return {"reward": note, **arguments}, episodes


# ---------------------------------------------------------------- prompts


def test_one_prompt_for_all_rows():
    envs = vector(3, max_prompt_tokens=5)
    observations, infos = envs.reset(options={"prompt": "hello"})
    assert texts(envs, observations) == infos["prompt"].tolist() == ["hello"] * 3


@pytest.mark.parametrize("as_what", [list, tuple, np.array])
def test_a_prompt_for_each_row(as_what):
    envs = vector(3, max_prompt_tokens=5)
    observations, _ = envs.reset(options={"prompt": as_what(["a", "bc", "你"])})
    assert texts(envs, observations) == ["a", "bc", "你"]


def test_a_record_brings_its_columns():
    arguments, episodes = seen_by_reward(max_new_tokens=1)
    envs = vector(2, **arguments)
    envs.reset(options={"prompt": [{"prompt": "a", "answer": 4}, Prompt("b", {"answer": 5})]})
    envs.step([65, 66])
    assert [e.columns["answer"] for e in episodes] == [4, 5]
    assert [e.prompt for e in episodes] == ["a", "b"]


def test_a_given_prompt_is_for_one_episode():
    """Later episodes draw as if nothing had been given."""
    prompts = [f"{i:02}" for i in range(50)]
    plain, given_one = (vector(2, prompts=prompts, max_new_tokens=1) for _ in range(2))
    first = plain.reset(seed=0)[0]
    given_one.reset(seed=0, options={"prompt": "zz"})
    np.testing.assert_array_equal(given_one.step([0, 0])[0], first)
    np.testing.assert_array_equal(given_one.step([0, 0])[0], plain.step([0, 0])[0])


def test_the_options_are_not_changed():
    options = {"prompt": "x", "reset_mask": np.array([True, False])}
    envs = vector()
    envs.reset(seed=0)
    envs.reset(options=options)
    assert set(options) == {"prompt", "reset_mask"}


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("as_what", [list, tuple, np.array, lambda ids: np.array(ids, np.int32)])
def test_one_row_of_tokens_for_all_rows(as_what):
    envs = vector(2, max_prompt_tokens=4)
    observations, infos = envs.reset(options={"tokens": as_what([104, 105, 256])})
    assert observations[:, :4].tolist() == [[104, 105, 256, PAD]] * 2
    assert infos["prompt"].tolist() == ["hi", "hi"]  # the stop token has no text


def test_tokens_of_different_lengths():
    envs = vector(2, max_prompt_tokens=4)
    observations, _ = envs.reset(options={"tokens": [[1, 2, 3], np.array([4])]})
    assert observations[:, :4].tolist() == [[1, 2, 3, PAD], [4, PAD, PAD, PAD]]


def test_tokens_with_columns():
    arguments, episodes = seen_by_reward(max_new_tokens=1)
    envs = vector(2, **arguments)
    envs.reset(options={"tokens": [97], "columns": {"answer": 1}})
    envs.step([65, 66])
    envs.reset(options={"tokens": [97], "columns": [{"answer": 2}, {"answer": 3}]})
    envs.step([65, 66])
    assert [e.columns["answer"] for e in episodes] == [1, 1, 2, 3]


def test_ids_that_no_text_encodes_to_are_kept():
    """Half a character, and a split that the tokenizer would not make: no round trip by text."""
    arguments, episodes = seen_by_reward(max_new_tokens=1, max_prompt_tokens=3)
    env = single(**arguments)
    observation, info = env.reset(options={"tokens": [0xE4, 0xBD]})
    assert observation.tolist() == [0xE4, 0xBD, PAD, PAD] and info["prompt"] == "\ufffd"
    env.step(0xA0)
    assert episodes[0].prompt_tokens.tolist() == [0xE4, 0xBD]
    assert episodes[0].tokens.tolist() == [0xA0]


def test_a_prompt_of_tokens_may_have_a_text_of_its_own():
    env = single(prompts=[Prompt("shown", tokens=np.array([1, 2]))])
    observation, info = env.reset(seed=0)
    assert info["prompt"] == "shown" and observation[:3].tolist() == [1, 2, PAD]


def test_a_text_does_not_stand_for_the_tokens_of_another_prompt():
    env = single(prompts=["shown"])
    observation, _ = env.reset(options={"prompt": Prompt("shown", tokens=np.array([1, 2]))})
    assert observation[:3].tolist() == [1, 2, PAD]


# ---------------------------------------------------------------- going on in an answer


@settings(max_examples=60)
@given(
    reward=st.sampled_from(["episode", "text"]),
    begun=st.integers(0, 4),
    seed=st.integers(0, 2**31),
    budget=st.sampled_from(["terminate", "truncate"]),
)
def test_an_observation_continued_gives_the_same_rest(reward, begun, seed, budget):
    """Tree search: leave an episode, come back to it in another environment, and go on."""
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, 8, 6)
    arguments = {
        "prompts": [{"prompt": "ab", "weight": 3}, {"prompt": "c", "weight": 5}],
        "reward": REWARDS[reward],
        "max_new_tokens": 6,
        "min_new_tokens": 3,
        "stop_tokens": [0],
        "budget": budget,
    }
    env, other = single(**arguments), single(**arguments)
    observation, info = env.reset(seed=seed)
    prompt = info["prompt"]
    for action in actions[:begun]:
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return
    again, info = other.reset(
        options={
            "tokens": observation,
            "prompt_length": len(prompt),
            "columns": {"weight": 3 if prompt == "ab" else 5},
        }
    )
    assert info["prompt"] == prompt
    np.testing.assert_array_equal(again, observation)
    np.testing.assert_array_equal(other.action_masks(), env.action_masks())
    for action in actions[begun:]:
        result = env.step(action)
        assert_same(other.step(action), result)
        if result[2] or result[3]:
            break


def test_a_dense_reward_counts_from_where_it_goes_on():
    env = single(reward=REWARDS["dense"], max_new_tokens=2)
    env.reset(options={"tokens": [120, 4, PAD], "prompt_length": 1})
    _, reward, terminated, _, info = env.step(6)
    assert terminated and reward == 6 * 0.5 + 3 - 2 + 10
    assert info["reward_components"] == {"place_of_the_action": reward}


def test_branching_from_one_observation():
    """All rows go on from row 0's text; each has its own prompt length if that is wanted."""
    envs = vector(3, max_prompt_tokens=4, max_new_tokens=4)
    envs.reset(seed=0)
    observations = envs.step([65, 66, 67])[0]
    branched, infos = envs.reset(options={"tokens": observations[0], "prompt_length": [1, 2, 3]})
    assert texts(envs, branched) == ["x>A"] * 3
    assert infos["prompt"].tolist() == ["x", "x>", "x>A"]
    ends = [envs.step([65, 65, 65])[2].tolist() for _ in range(4)]
    assert ends == [
        [False, False, False],
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_without_a_prompt_length_all_tokens_are_the_prompt():
    env = single(max_prompt_tokens=4, max_new_tokens=2)
    env.reset(options={"tokens": [1, 2, 3]})
    assert env.step(4)[2] is False and env.step(5)[2] is True


# ---------------------------------------------------------------- some rows only


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_mask_leaves_the_other_rows_alone(mode):
    envs = vector(3, max_prompt_tokens=4, autoreset_mode=mode, reward=columns_and_ids)
    envs.reset(seed=0)
    envs.step([65, 66, 67])
    mask = np.array([False, True, True])
    observations, infos = envs.reset(options={"prompt": ["one", "two"], "reset_mask": mask})
    assert texts(envs, observations) == ["x>A", "one", "two"]
    assert infos["prompt"].tolist() == [None, "one", "two"]
    assert infos["_prompt"].tolist() == mask.tolist()
    assert texts(envs, envs.step([65, 66, 67])[0]) == ["x>AA", "oneB", "twoC"]


def test_a_mask_limits_seeds_too():
    prompts = [f"{i:02}" for i in range(99)]
    envs, same = vector(2, prompts=prompts), vector(2, prompts=prompts)
    envs.reset(seed=0)
    same.reset(seed=0)
    mask = np.array([False, True])
    envs.reset(seed=0, options={"reset_mask": mask})  # row 1 begins its stream again, row 0 stays
    drawn = [envs.reset()[1]["prompt"] for _ in range(3)]
    expected = [same.reset()[1]["prompt"] for _ in range(3)]
    assert [one[0] for one in drawn] == [one[0] for one in expected]
    assert [one[1] for one in drawn] == [one[1] for one in expected]


def test_a_seed_of_none_lets_a_row_go_on():
    prompts = [f"{i:02}" for i in range(99)]
    envs, same = vector(2, prompts=prompts), vector(2, prompts=prompts)
    envs.reset(seed=0)
    same.reset(seed=0)
    one, other = envs.reset(seed=[None, 7])[0], same.reset()[0]
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], single(prompts=prompts).reset(seed=7)[0])


def test_a_reset_in_the_middle_starts_a_new_episode():
    env = single(reward=REWARDS["both"])
    env.reset(seed=0)
    env.step(65)
    observation, _ = env.reset()
    assert text(env, observation) == "x>"
    paid = [env.step(65)[1] for _ in range(4)]
    fresh = single(reward=REWARDS["both"])
    fresh.reset(seed=0)
    assert paid == [fresh.step(65)[1] for _ in range(4)]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prmpt": "x"}, r"\['prmpt'\] cannot be used: give 'prompt', or 'tokens'"),
        ({"prompt": "x", "tokens": [1]}, r"\['prompt', 'tokens'\] cannot be used"),
        ({"prompt_length": 1}, r"\['prompt_length'\] cannot be used"),
        ({"columns": {}}, r"\['columns'\] cannot be used"),
        ({1: "x"}, r"\['1'\] cannot be used"),
        ({"prompt": "x", "columns": {}}, "give a prompt with columns as a record"),
        ({"prompt": ["x"]}, r"options\['prompt'\] holds 1 values; 2 rows are to be reset"),
        ({"prompt": []}, r"options\['prompt'\] cannot be used: the list of prompts is empty"),
        ({"prompt": 3}, r"options\['prompt'\] cannot be used: 3 is not a list"),
        ({"prompt": [1, 2]}, r"options\['prompt'\] cannot be used: prompts\[0\]"),
        ({"prompt": {"text": "x"}}, r"the record has neither of 'prompt' and 'tokens'"),
        ({"tokens": 3}, r"options\['tokens'\] is 3, not a list"),
        ({"tokens": None}, r"row 0: the tokens None are not a list"),
        ({"tokens": []}, r"options\['tokens'\], row 0: the tokens of the prompt are an empty list"),
        ({"tokens": [[1]]}, r"options\['tokens'\] holds 1 values; 2 rows"),
        ({"tokens": [[1], []]}, r"options\['tokens'\], row 1: .* empty"),
        ({"tokens": [PAD, PAD]}, "row 0: the tokens are nothing but padding"),
        ({"tokens": [0.5, 1.0]}, r"row 0: the tokens \[0.5, 1.0\] are not a list of integers"),
        ({"tokens": [[1], ["a"]]}, r"row 1: the tokens \['a'\] are not a list of integers"),
        ({"tokens": [-1, 2]}, r"row 0: the tokens \[-1, 2\] are outside every vocabulary"),
        ({"tokens": [1], "prompt_length": 0}, r"'prompt_length'\], row 0: 0 is not within 1\.\.1"),
        ({"tokens": [1], "prompt_length": 2}, r"'prompt_length'\], row 0: 2 is not within 1\.\.1"),
        ({"tokens": [1], "prompt_length": -1}, r"row 0: -1 is not within 1\.\.1"),
        ({"tokens": [1], "prompt_length": 1.0}, r"row 0: 1.0 is not within"),
        ({"tokens": [1], "prompt_length": [1]}, r"'prompt_length'\] holds 1 values; 2 rows"),
        ({"tokens": [1], "columns": 3}, r"options\['columns'\] is 3, not a list"),
        ({"tokens": [1], "columns": [{}, 3]}, r"options\['columns'\], row 1: 3 is not a dict"),
        ({"tokens": [1], "columns": {1: 2}}, r"row 0: the columns \[1\] have names that are no"),
        ({"tokens": [1, 2, 3, 4, 5], "prompt_length": 1}, r"row 0: .* has 4 tokens, .* is 4"),
        ({"tokens": [1, 256], "prompt_length": 1}, r"row 0: .* has the stop token 256"),
        ({"tokens": [1, 999], "prompt_length": 1}, r"row 0: .* token 999; tokens are 0 to 256"),
        ({"reset_mask": np.array([True])}, r"a boolean array of shape \(2,\)"),
        ({"reset_mask": np.array([1, 0])}, r"array\(\[1, 0\]\); it must be a boolean array"),
        ({"reset_mask": np.array([False, False])}, "at least one True"),
    ],
)
def test_options_that_make_no_start(options, message):
    envs = vector(2, max_prompt_tokens=4)
    before = envs.reset(seed=0)[0]
    with pytest.raises(ResetOptionsError, match=message):
        envs.reset(options=options)
    assert texts(envs, envs.step([65, 66])[0]) == ["x>A", "x>B"]  # no row was touched
    assert texts(envs, before) == ["x>", "x>"]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"prompt": ["ab", "abcde"]}, PromptTooLongError, "row 1: the prompt 'abcde' has 5 tokens"),
        (
            {"tokens": [1, 2, 3, 4, 5]},
            PromptTooLongError,
            "says where the answer begins",
        ),
        ({"tokens": [1, PAD, 2]}, PromptError, "row 0: the prompt has the token 257"),
        ({"tokens": [1, 999]}, PromptError, "row 0: the prompt has the token 999"),
        ({"prompt": ["a", ""]}, EmptyPromptsError, "row 1: the prompt '' has no token"),
    ],
)
def test_prompts_that_do_not_fit(options, error, message):
    envs = vector(2, max_prompt_tokens=4)
    envs.reset(seed=0)
    with pytest.raises(error, match=message):
        envs.reset(options=options)
    assert texts(envs, envs.step([65, 66])[0]) == ["x>A", "x>B"]  # all rows or none


def test_the_wrong_number_of_seeds():
    with pytest.raises(ValueError, match="3 seeds were given for 2 rows"):
        vector(2, reward=nothing).reset(seed=[1, 2, 3])

"""The three autoreset modes and both kinds of budget, as tables traced by hand.

Two rows, three tokens an answer, "." stops, and the reward is the number of a's. Prompts are
numbered in the order in which they are drawn, so a table shows which row drew when. `step` below
acts on both rows; every line is one row of one step.
"""

import numpy as np
import pytest
from environments import Numbered, number_of_a, place_of_the_action, single, text, vector
from gymnasium.vector import AutoresetMode

from textenv.errors import EpisodeOverError
from textenv.rewards import dense

ACTIONS = ["aa", ".b", "ba", "aa", "aa", "a."]  # a step each, a character a row
F, T = False, True

# What comes back for each row: text, reward, terminated, truncated, info. The info is
#   None           nothing
#   "new"          the prompt of a new episode
#   "stop", "length"    the end of one
#   ("stop", text)      the end of one whose final observation is `text`, and a new one's prompt
SAME_STEP = [
    (("0>a", 0, F, F, None), ("1>a", 0, F, F, None)),
    (("2>", 1, T, F, ("stop", "0>a.")), ("1>ab", 0, F, F, None)),
    (("2>b", 0, F, F, None), ("3>", 2, T, F, ("length", "1>aba"))),
    (("2>ba", 0, F, F, None), ("3>a", 0, F, F, None)),
    (("4>", 2, T, F, ("length", "2>baa")), ("3>aa", 0, F, F, None)),
    (("4>a", 0, F, F, None), ("5>", 2, T, F, ("stop", "3>aa."))),
]
# The step after an end starts the next episode, whatever the action, and pays nothing.
NEXT_STEP = [
    (("0>a", 0, F, F, None), ("1>a", 0, F, F, None)),
    (("0>a.", 1, T, F, "stop"), ("1>ab", 0, F, F, None)),
    (("2>", 0, F, F, "new"), ("1>aba", 2, T, F, "length")),
    (("2>a", 0, F, F, None), ("3>", 0, F, F, "new")),
    (("2>aa", 0, F, F, None), ("3>a", 0, F, F, None)),
    (("2>aaa", 3, T, F, "length"), ("3>a.", 1, T, F, "stop")),
]
# Here the test resets the rows that are over, after the step that is shown.
DISABLED = [
    (("0>a", 0, F, F, None), ("1>a", 0, F, F, None)),
    (("0>a.", 1, T, F, "stop"), ("1>ab", 0, F, F, None)),
    (("2>b", 0, F, F, None), ("1>aba", 2, T, F, "length")),
    (("2>ba", 0, F, F, None), ("3>a", 0, F, F, None)),
    (("2>baa", 2, T, F, "length"), ("3>aa", 0, F, F, None)),
    (("4>a", 0, F, F, None), ("3>aa.", 2, T, F, "stop")),
]
TABLES = {
    AutoresetMode.SAME_STEP: SAME_STEP,
    AutoresetMode.NEXT_STEP: NEXT_STEP,
    AutoresetMode.DISABLED: DISABLED,
}


def make(mode, budget):
    return vector(
        prompts=Numbered(),
        max_prompt_tokens=2,
        max_new_tokens=3,
        stop_tokens=[ord(".")],
        reward=number_of_a,
        autoreset_mode=mode,
        budget=budget,
    )


def check_end(envs, infos, row, reason, final, reward):
    """The info of an episode that ended in `row` with the text `final`."""
    answer = final[2:].removesuffix(".")
    assert infos["_finish_reason"][row] and infos["finish_reason"][row] == reason
    assert infos["_text"][row] and infos["text"][row] == answer
    assert infos["_reward_components"][row]
    assert infos["reward_components"]["_number_of_a"][row]
    assert infos["reward_components"]["number_of_a"][row] == reward


def check_no_end(infos, row):
    for key in ("finish_reason", "text", "reward_components"):
        assert key not in infos or not infos[f"_{key}"][row]


def check_info(envs, infos, row, entry, observation, reward):
    starts = "prompt" in infos and infos["_prompt"][row]
    has_final = "final_info" in infos and infos["_final_info"][row] and infos["_final_obs"][row]
    assert starts == (entry == "new" or isinstance(entry, tuple))
    if starts:
        assert infos["prompt"][row] == observation
    assert has_final == isinstance(entry, tuple)
    if isinstance(entry, tuple):
        reason, final = entry
        assert text(envs, infos["final_obs"][row]) == final
        assert infos["final_obs"][row].dtype == np.int64
        check_end(envs, infos["final_info"], row, reason, final, reward)
    elif entry in ("stop", "length"):
        check_end(envs, infos, row, entry, observation, reward)
        return
    check_no_end(infos, row)
    if not isinstance(entry, tuple) and "final_info" in infos:
        assert infos["final_obs"][row] is None
        check_no_end(infos["final_info"], row)


@pytest.mark.parametrize("budget", ["terminate", "truncate"])
@pytest.mark.parametrize("mode", TABLES)
def test_table(mode, budget):
    envs = make(mode, budget)
    observations, infos = envs.reset(seed=0)
    assert [text(envs, o) for o in observations] == infos["prompt"].tolist() == ["0>", "1>"]
    for actions, expected in zip(ACTIONS, TABLES[mode], strict=True):
        observations, rewards, terminated, truncated, infos = envs.step([ord(c) for c in actions])
        for row, (observation, reward, ends, _, entry) in enumerate(expected):
            reason = entry[0] if isinstance(entry, tuple) else entry
            cut = budget == "truncate" and reason == "length"
            assert text(envs, observations[row]) == observation
            assert rewards[row] == reward
            assert (terminated[row], truncated[row]) == (ends and not cut, cut)
            check_info(envs, infos, row, entry, observation, reward)
        over = terminated | truncated
        if mode is AutoresetMode.DISABLED and over.any():
            with pytest.raises(EpisodeOverError, match=r"reset_mask"):
                envs.step([0, 0])
            envs.reset(options={"reset_mask": over})


def test_table_of_the_single_environment():
    env = single(prompts=["1>"], max_new_tokens=3, stop_tokens=[46], reward=number_of_a)
    length = {"finish_reason": "length", "text": "aba", "reward_components": {"number_of_a": 2.0}}
    stop = {"finish_reason": "stop", "text": "a", "reward_components": {"number_of_a": 1.0}}
    table = [
        ("reset", "1>", {"prompt": "1>"}),
        ("a", "1>a", 0.0, F, {}),
        ("b", "1>ab", 0.0, F, {}),
        ("a", "1>aba", 2.0, T, length),
        ("reset", "1>", {"prompt": "1>"}),
        ("a", "1>a", 0.0, F, {}),
        (".", "1>a.", 1.0, T, stop),
        ("reset", "1>", {"prompt": "1>"}),
    ]
    for action, observation, *expected in table:
        if action == "reset":
            after, info = env.reset()
            assert isinstance(info.pop("episode_seed"), int)
            assert dict(info.pop("record")) == {"prompt": "1>"}
            result = [info]
        else:
            after, reward, terminated, truncated, info = env.step(ord(action))
            assert truncated is False
            result = [reward, terminated, info]
        assert text(env, after) == observation and result == expected


def test_a_stop_token_at_the_last_place_of_the_budget_is_a_stop():
    """It terminates, and so does not bootstrap, even where a spent budget truncates."""
    for mode in TABLES:
        envs = make(mode, "truncate")
        envs.reset(seed=0)
        for actions in ("aa", "aa", ".a"):
            *_, terminated, truncated, infos = envs.step([ord(c) for c in actions])
        assert terminated.tolist() == [True, False] and truncated.tolist() == [False, True]
        ends = infos.get("final_info", infos)
        assert ends["finish_reason"].tolist() == ["stop", "length"]


def test_a_short_row_is_ended_by_its_own_budget():
    """The end is not read off the padded width: both rows have three tokens, one a long prompt."""
    envs = vector(prompts=["x"], max_prompt_tokens=6, max_new_tokens=3, budget="truncate")
    envs.reset(options={"prompt": ["x", "longer"]})
    for t in range(3):
        *_, terminated, truncated, infos = envs.step([97, 98])
        assert truncated.tolist() == [t == 2, t == 2] and not terminated.any()
    final = infos["final_obs"]
    assert [text(envs, o) for o in final] == ["xaaa", "longerbbb"]
    assert (final[0] == envs.pad_token).sum() == 5 and (final[1] == envs.pad_token).sum() == 0


@pytest.mark.parametrize("mode", TABLES)
def test_every_reward_is_paid_once_and_at_the_end(mode):
    """Over many random episodes the rewards that were paid are those of the finished texts."""
    scored = []

    def reward(episodes):
        scored.extend(e.text for e in episodes)
        return [1.0 + len(e.text) for e in episodes]

    envs = vector(4, reward=reward, stop_tokens=[1], max_new_tokens=5, autoreset_mode=mode)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    total, told = 0.0, []
    for _ in range(100):
        _, rewards, terminated, truncated, infos = envs.step(rng.integers(0, 4, 4))
        over = terminated | truncated
        assert (rewards[~over] == 0).all()
        total += rewards.sum()
        told += [t for t in infos.get("final_info", infos).get("text", [None]) if t is not None]
        if mode is AutoresetMode.DISABLED and over.any():
            envs.reset(options={"reset_mask": over})
    assert len(told) > 80
    assert told == scored
    assert total == sum(1.0 + len(t) for t in scored)


def test_the_step_that_only_resets_ignores_its_action_and_pays_nothing():

    moved = []

    def watch(batch):
        moved.append(batch.actions.tolist())
        return place_of_the_action(batch)

    envs = vector(
        stop_tokens=[46],
        autoreset_mode=AutoresetMode.NEXT_STEP,
        reward=dense(watch),
        min_new_tokens=1,
    )
    envs.reset(seed=0)
    envs.step([46, 97])
    observations, rewards, *_, infos = envs.step([98, 99])
    assert moved == [[46, 97], [99]]  # the reset is no row of a dense reward's batch
    assert text(envs, observations[0]) == "x>" and rewards[0] == 0
    assert not infos["action_mask"][0, 46] and infos["action_mask"][1, 46]


def test_modes_are_declared():
    for mode in TABLES:
        for given in (mode, mode.value):
            envs = vector(autoreset_mode=given)
            assert envs.metadata["autoreset_mode"] is envs.autoreset_mode is mode
    assert vector().autoreset_mode is AutoresetMode.SAME_STEP

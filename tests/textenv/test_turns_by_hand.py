"""Two turns in every autoreset mode: everything that `reset` and `step` return, traced by hand.

Two rows of one group. The world repeats what was said and adds an f; see `two_turns.Echo`. Row 0
says "a" and "b" and ends both turns with the stop token, so the world ends its episode. Row 1 says
"ab" and "a": its first turn has no room left, its second is cut by the end of the text.

Each line of a table is one row of one step: the observation's ids, the reward, terminated,
truncated, and all that the infos tell of the row, its action mask included.
"""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from two_turns import ACTIONS, PAD, STOP, A, B, C, D, E, F, options

from textenv import TextEnv, TextVectorEnv

T, N = True, False
ANY = {"action_mask": [T, T, T, T, T, T, T]}
NO_STOP = {"action_mask": [T, T, T, T, T, T, N]}  # at the beginning of a turn


def begun(letter, number):
    """What is told of an episode that begins."""
    return {"prompt": f"{letter}e", "record": {"prompt": letter, "nth": number}, **NO_STOP}


def heard(number, turn, reply):
    """What is told of a turn that has ended."""
    ids = ["abcdef".index(letter) for letter in reply]
    return {
        "turn": number,
        "reply": reply,
        "reply_tokens": ids,
        "reply_info": {"heard": turn},
        **NO_STOP,
    }


def over(reason, text, group, paid=1.5):
    """What is told of an episode that has ended."""
    return {
        "finish_reason": reason,
        "text": text,
        "turns": 2,
        "world_info": {"heard": text},
        "reward_components": {"world": paid},
        "group": group,
        **ANY,
    }


def replaced(observation, ending, beginning):
    """What is told in SAME_STEP mode of a row that ends and begins again."""
    return {"final_obs": observation, "final_info": ending, **beginning}


P = PAD
RESET = [([C, E, P, P, P, P, P, P], begun("c", 0)), ([C, E, P, P, P, P, P, P], begun("c", 0))]
FIRST_TURN = [
    [([C, E, A, P, P, P, P, P], 0, N, N, ANY), ([C, E, A, P, P, P, P, P], 0, N, N, ANY)],
    [
        ([C, E, A, STOP, A, F, P, P], 0.5, N, N, heard(1, "a", "af")),
        ([C, E, A, B, A, B, F, P], 0.5, N, N, heard(1, "ab", "abf")),
    ],
]
WHOLE_0, WHOLE_1 = [C, E, A, STOP, A, F, B, STOP], [C, E, A, B, A, B, F, A]
SAME_STEP = [
    *FIRST_TURN,
    [
        ([C, E, A, STOP, A, F, B, P], 0, N, N, ANY),
        (
            [D, E, P, P, P, P, P, P],
            1,
            T,
            N,
            replaced(WHOLE_1, over("length", "a", 0), begun("d", 1)),
        ),
    ],
    [
        (
            [D, E, P, P, P, P, P, P],
            1,
            T,
            N,
            replaced(WHOLE_0, over("world", "b", 0), begun("d", 1)),
        ),
        ([D, E, B, P, P, P, P, P], 0, N, N, ANY),
    ],
    [
        ([D, E, C, P, P, P, P, P], 0, N, N, ANY),
        ([D, E, B, C, B, C, F, P], 0.5, N, N, heard(1, "bc", "bcf")),
    ],
    [
        ([D, E, C, A, C, A, F, P], 0.5, N, N, heard(1, "ca", "caf")),
        (
            [C, E, P, P, P, P, P, P],
            1,
            T,
            N,
            replaced([D, E, B, C, B, C, F, A], over("length", "a", 1), begun("c", 2)),
        ),
    ],
]
# The step after an end begins the next episode, whatever the action, and pays nothing.
NEXT_STEP = [
    *FIRST_TURN,
    [
        ([C, E, A, STOP, A, F, B, P], 0, N, N, ANY),
        (WHOLE_1, 1, T, N, over("length", "a", 0)),
    ],
    [
        (WHOLE_0, 1, T, N, over("world", "b", 0)),
        ([D, E, P, P, P, P, P, P], 0, N, N, begun("d", 1)),
    ],
    [
        ([D, E, P, P, P, P, P, P], 0, N, N, begun("d", 1)),
        ([D, E, C, P, P, P, P, P], 0, N, N, ANY),
    ],
    [
        ([D, E, A, P, P, P, P, P], 0, N, N, ANY),
        ([D, E, C, A, C, A, F, P], 0.5, N, N, heard(1, "ca", "caf")),
    ],
]
# Here the test resets the rows that are over, after the step that is shown.
DISABLED = [
    *FIRST_TURN,
    [
        ([C, E, A, STOP, A, F, B, P], 0, N, N, ANY),
        (WHOLE_1, 1, T, N, over("length", "a", 0)),
    ],
    [
        (WHOLE_0, 1, T, N, over("world", "b", 0)),
        ([D, E, B, P, P, P, P, P], 0, N, N, ANY),
    ],
    [
        ([D, E, C, P, P, P, P, P], 0, N, N, ANY),
        ([D, E, B, C, B, C, F, P], 0.5, N, N, heard(1, "bc", "bcf")),
    ],
    [
        ([D, E, C, A, C, A, F, P], 0.5, N, N, heard(1, "ca", "caf")),
        ([D, E, B, C, B, C, F, A], 1, T, N, over("length", "a", 1)),
    ],
]
TABLES = {
    AutoresetMode.SAME_STEP: SAME_STEP,
    AutoresetMode.NEXT_STEP: NEXT_STEP,
    AutoresetMode.DISABLED: DISABLED,
}
BEGUN_AGAIN = {2: (1, begun("d", 1)), 3: (0, begun("d", 1)), 5: (1, begun("c", 2))}
"""DISABLED: the step after which a row is reset, and what is told of it."""


def plain(value):
    """Arrays and records as lists and dicts, which compare with ==."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, str | int | float | list) else dict(value)


def told(infos, row):
    """All that infos tell of a row, as their marks say; the seed is left out."""
    found = {}
    for name, values in infos.items():
        if name.startswith("_") or not infos.get(f"_{name}", np.ones(2))[row]:
            continue
        nested = isinstance(values, dict)
        found[name] = told(values, row) if nested else plain(values[row])
    seed = found.pop("episode_seed", 0)
    assert isinstance(seed, int) and ("prompt" in found) == bool(seed)
    return found


@pytest.mark.parametrize("mode", TABLES)
def test_table(mode):
    envs = TextVectorEnv(2, autoreset_mode=mode, **options())
    observations, infos = envs.reset(seed=0)
    for row, (expected, info) in enumerate(RESET):
        assert observations[row].tolist() == expected and told(infos, row) == info
    for number, (actions, table) in enumerate(zip(ACTIONS, TABLES[mode], strict=True)):
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert observations.dtype == np.int64 and rewards.dtype == np.float64
        assert terminated.dtype == truncated.dtype == bool
        for row, (expected, reward, ends, cut, info) in enumerate(table):
            place = f"step {number}, row {row}"
            assert observations[row].tolist() == expected, place
            assert (rewards[row], terminated[row], truncated[row]) == (reward, ends, cut), place
            assert told(infos, row) == info, place
        if mode is AutoresetMode.DISABLED and terminated.any():
            row, info = BEGUN_AGAIN[number]
            _, infos = envs.reset(options={"reset_mask": terminated})
            assert told(infos, row) == info and terminated.tolist().index(True) == row


def test_table_of_the_single_environment():
    """Each of the rows of the first episode alone, as `TextEnv` tells it."""
    for row in (0, 1):
        alone = {name: value for name, value in options().items() if name != "group_size"}
        env = TextEnv(**alone)
        observation, info = env.reset(seed=0)
        expected, beginning = RESET[row]
        assert isinstance(info.pop("episode_seed"), int)
        assert observation.tolist() == expected
        assert {name: plain(value) for name, value in info.items()} == beginning
        for actions, table in zip(ACTIONS, DISABLED, strict=True):
            observation, reward, terminated, truncated, info = env.step(actions[row])
            expected, *flags, ending = table[row]
            assert observation.tolist() == expected
            assert [reward, terminated, truncated] == flags
            ending = {name: value for name, value in ending.items() if name != "group"}
            assert {name: plain(value) for name, value in info.items()} == ending
            if terminated:
                break
        assert terminated


def test_a_budget_that_truncates_changes_the_flag_of_the_cut_row_alone():
    for mode, table in TABLES.items():
        envs = TextVectorEnv(2, autoreset_mode=mode, budget="truncate", **options())
        envs.reset(seed=0)
        for actions, rows in zip(ACTIONS[:4], table, strict=False):
            _, rewards, terminated, truncated, _ = envs.step(actions)
            assert rewards.tolist() == [reward for _, reward, *_ in rows]
            by_world, by_budget = rows[0][2], rows[1][2]
            assert terminated.tolist() == [by_world, False]
            assert truncated.tolist() == [False, by_budget]
            if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
                envs.reset(options={"reset_mask": terminated | truncated})

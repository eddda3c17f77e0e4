"""The rollout of two turns in every autoreset mode, with all its arrays, traced by hand.

The episodes are those of `tests/textenv/test_turns_by_hand.py`. Row 1 ends a step before row 0.
"""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from toys import ScriptedPolicy, scripted_logprob, scripted_value
from two_turns import ACTIONS, STOP, A, B, C, E, F, options

from agents.collector import Collector
from textenv import TextVectorEnv

MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]

TOKENS = [[C, E, A, B, A, B, F, A], [C, E, A, STOP, A, F, B, STOP]]
CHOSEN = [[0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0, 1, 1]]
TURNS = [[-1, -1, 1, 1, -1, -1, -1, 2], [-1, -1, 1, 1, -1, -1, 2, 2]]
REWARDS = [[0, 0, 0, 0.5, 0, 0, 0, 1], [0, 0, 0, 0.5, 0, 0, 0, 1]]
# Of each chosen token: whether the stop token could be chosen too.
MAY_STOP = [[False, True, False], [False, True, False, True]]


@pytest.mark.parametrize("mode", MODES)
def test_all_arrays(mode):
    envs = TextVectorEnv(2, autoreset_mode=mode, **options())
    rollout = Collector(ScriptedPolicy(7, 8, ACTIONS), envs, seed=0).collect_episodes(2)
    chosen = torch.tensor(CHOSEN).bool()
    assert rollout.tokens.tolist() == TOKENS and rollout.tokens.dtype == torch.int64
    assert torch.equal(rollout.mask, chosen)
    assert rollout.turns.tolist() == TURNS and rollout.turns.dtype == torch.int64
    assert rollout.rewards.tolist() == REWARDS and rollout.rewards.dtype == torch.float64

    # The text before a token has as many tokens as its place says; nothing else has a number.
    logprobs, values = np.zeros((2, 2, 8))
    for row, place in zip(*np.nonzero(CHOSEN), strict=True):
        logprobs[row, place] = scripted_logprob(place, TOKENS[row][place])
        values[row, place] = scripted_value(place)
    assert rollout.logprobs.numpy().tolist() == np.float32(logprobs).tolist()
    assert rollout.values.numpy().tolist() == np.float32(values).tolist()

    letters = torch.ones(7, 6, dtype=torch.bool)
    stops = torch.tensor([*MAY_STOP[0], *MAY_STOP[1]])[:, None]
    assert torch.equal(rollout.action_masks, torch.cat([letters, stops], 1))

    assert rollout.scores.tolist() == rollout.episode_returns.tolist() == [1.5, 1.5]
    assert rollout.terminated.tolist() == [True, True]
    assert rollout.truncated.tolist() == rollout.mid_turn.tolist() == [False, False]
    assert rollout.bootstrap_values.tolist() == [0.0, 0.0]
    assert rollout.groups.tolist() == [0, 0] and rollout.prompt_lengths.tolist() == [2, 2]
    assert rollout.records == ({"prompt": "c", "nth": 0},) * 2
    assert rollout.texts == ("a", "b")
    assert [start.opening.text for start in rollout.starts] == ["ce", "ce"]
    assert rollout.starts[0].draw_seed == rollout.starts[1].draw_seed
    assert rollout.starts[0].episode_seed != rollout.starts[1].episode_seed
    endings = {name: values.tolist() for name, values in rollout.endings.items()}
    assert endings == {"tokens": [3, 4], "by_budget": [1, 0]}

"""Every grain of credit ends at the best policy of conversations whose replies are drawn.

With the settings of `benchmarks/exact_conversations.py`: shortly with one seed, and in full over
five under the `full` marker.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks import exact_conversations as tasks

torch.set_num_threads(1)


def ends(name, seed, tokens):
    """Total variation before and after."""
    curve = list(tasks.train(tasks.ALGORITHMS[name], seed, tokens))
    return curve[0][1], curve[-1][1]


@pytest.mark.parametrize(
    ("name", "after"), [("PPO", 0.1), ("PPO by turn", 0.1), ("RLOO", 0.16), ("GRPO", 0.12)]
)
def test_a_short_training_comes_part_of_the_way(name, after):
    """A sixth of the tokens."""
    found = ends(name, seed=0, tokens=40_000)
    assert found[0] > 0.2 and found[1] < after


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["PPO", "PPO by turn", "RLOO", "GRPO"])
def test_a_whole_training_ends_at_the_best_policy(name, seed):
    before, after = ends(name, seed, tasks.CHOSEN)
    assert before > 0.19
    assert after <= tasks.TARGET

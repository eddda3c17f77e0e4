"""Answers of given lengths, which the benchmarks of rollouts are measured on."""

import numpy as np

from benchmarks.common import no_reward
from benchmarks.rollout import PlannedLengths


def test_answers_have_the_lengths_that_were_drawn():
    lengths = [2, 5, 3]
    envs = PlannedLengths(
        lengths,
        prompts=["a"],
        reward=no_reward,
        tokenizer="bytes",
        max_new_tokens=6,
        stop_tokens=(),
    )
    envs.reset(seed=0)
    rows, done = envs.num_envs, []
    for _ in range(6):
        _, _, terminated, _, infos = envs.step(np.full(rows, 98))
        for row in terminated.nonzero()[0].tolist():
            done.append((row, len(infos["final_info"]["text"][row])))
    firsts = dict(reversed(done))
    assert [firsts[row] for row in range(6)] == 2 * lengths

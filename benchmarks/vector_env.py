"""The environment alone: `TextVectorEnv` against Gymnasium's and SB3's vectors of `TextEnv`.

32 rows, vocabulary of 50,257, prompts of 32 tokens, answers of 64, random actions, a reward that
costs nothing. Environment steps per second (rows x vector steps), medians; and the share of a
rollout step of model S that the environment takes.

Run: taskset -c 0 python -m benchmarks.vector_env --threads 1
"""

import time

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from benchmarks.common import (
    ROWS,
    Ids,
    command_line,
    interleaved,
    make_policy,
    median,
    no_reward,
    ratio,
    report,
)
from textenv import TextEnv, TextVectorEnv

VOCABULARY, PROMPT, ANSWER = 50257, 32, 64


def arguments_of_env():
    """The environment's arguments, new for each side."""
    rng = np.random.default_rng(0)
    prompts = [{"tokens": rng.integers(0, VOCABULARY, PROMPT).tolist()} for _ in range(256)]
    return {
        "prompts": prompts,
        "reward": no_reward,
        "tokenizer": Ids(VOCABULARY),
        "max_new_tokens": ANSWER,
    }


def make_one():
    """One row."""
    return TextEnv(**arguments_of_env())


def stepping_rate(envs, step, steps: int):
    """Rows x vector steps per second of calling `step` with actions drawn beforehand."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, VOCABULARY, (256, ROWS))

    def run() -> float:
        begin = time.perf_counter()
        for number in range(steps):
            step(actions[number % 256])
        return ROWS * steps / (time.perf_counter() - begin)

    return run


def sb3_step(envs):
    """SB3's two halves of a step."""

    def step(actions):
        envs.step_async(actions)
        return envs.step_wait()

    return step


def numpy_floor(steps: int):
    """Write a token, copy the observations and look for a stop token, and nothing else."""
    tokens = np.full((ROWS, PROMPT + ANSWER), VOCABULARY, dtype=np.int64)
    lengths = np.full(ROWS, PROMPT)
    rows = np.arange(ROWS)

    def step(actions):
        nonlocal lengths
        tokens[rows, lengths] = actions
        lengths = lengths + 1
        ended = (actions == -1) | (lengths == PROMPT + ANSWER)
        if ended.any():
            tokens[:, PROMPT:] = VOCABULARY
            lengths[:] = PROMPT
        return tokens.copy(), np.zeros(ROWS), ended

    return stepping_rate(None, step, steps)


def main() -> None:
    """Measure all sides."""
    parser = command_line(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    makers = [make_one] * ROWS
    native = TextVectorEnv(ROWS, **arguments_of_env())
    vectors = {
        "SyncVectorEnv": SyncVectorEnv(makers),
        "AsyncVectorEnv": AsyncVectorEnv(makers),
        "DummyVecEnv": DummyVecEnv(makers),
        "SubprocVecEnv": SubprocVecEnv(makers),
    }
    native.reset(seed=0)
    sides = {"textenv": stepping_rate(native, native.step, 20_000), "numpy": numpy_floor(20_000)}
    for name, envs in vectors.items():
        envs.reset()
        step = sb3_step(envs) if name in ("DummyVecEnv", "SubprocVecEnv") else envs.step
        slow = name in ("AsyncVectorEnv", "SubprocVecEnv")
        sides[name] = stepping_rate(envs, step, 200 if slow else 1_000)
    figures = interleaved(sides, arguments.repeats)
    for envs in vectors.values():
        envs.close()
    rows = [
        {
            "environment": name,
            "steps/s": median(figures[name]),
            "textenv is faster by": ratio(figures, "textenv", name),
        }
        for name in sides
    ]
    report("vector_env", rows, share_of_rollout=share_of_rollout(), repeats=arguments.repeats)


def share_of_rollout() -> float:
    """The environment's share of the time of a rollout step of model S."""
    policy = make_policy("S")
    envs = TextVectorEnv(
        ROWS, **(arguments_of_env() | {"tokenizer": Ids(policy.vocab_size), "prompts": ["1 2 3"]})
    )
    observations, _ = envs.reset(seed=0)
    cache = policy.new_cache(*observations.shape)
    shares = []
    for _ in range(5):
        inside = 0.0
        begin = time.perf_counter()
        for _ in range(64):
            step = policy.act(observations, cache)
            entered = time.perf_counter()
            observations, *_ = envs.step(step.actions)
            inside += time.perf_counter() - entered
        shares.append(inside / (time.perf_counter() - begin))
    print(f"share of a rollout step: {median(shares):.2%}")
    return median(shares)


if __name__ == "__main__":
    main()

"""Completions and seconds until two toy tasks are learned, against TRL's GRPO.

"alt": the share of ids whose parity differs from the one before, from 0.5 to 0.9. "even": the
share of even ids, from 0.5 to 0.9, with the entropy of the choices kept above 4 nats, since it can
also be won by collapsing onto one even token. One score per answer; model S, 32 answers a step, of
64 tokens for "alt" and 32 for "even". Learning rates were chosen on other seeds for both sides.
Entropy and the number of distinct tokens of the last step are printed beside the result. Both sides
in fp32, and where the processor has it in bf16 (of textenv the updates).

Run: taskset -c 0 python -m benchmarks.learning --threads 1
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.optim import AdamW

from agents import Learner
from agents.algorithms import GRPO
from benchmarks.common import (
    BF16,
    ROWS,
    Ids,
    command_line,
    make_policy,
    median,
    random_prompts,
    report,
)
from benchmarks.peers import run_trl
from textenv import TextVectorEnv

GOAL = 0.9


def alternation(tokens) -> float:
    """Share of ids whose parity differs from the one before."""
    parity = np.asarray(tokens) % 2
    return float((parity[1:] != parity[:-1]).mean())


def evenness(tokens) -> float:
    """Share of even ids."""
    return float((np.asarray(tokens) % 2 == 0).mean())


class Task(NamedTuple):
    """The score of a task, and how both sides are trained on it.

    Attributes:
        score: Gives the tokens of an answer a score, 0 to 1.
        answer: Number of tokens of an answer.
        rate: Our learning rate, constant.
        trl_rate: TRL's learning rate.
        limit: Number of steps after which a side has failed.
    """

    score: Callable[[Sequence[int]], float]
    answer: int
    rate: float
    trl_rate: float
    limit: int


TASKS = {
    "alt": Task(alternation, answer=64, rate=6e-3, trl_rate=3e-3, limit=150),
    "even": Task(evenness, answer=32, rate=1e-2, trl_rate=1e-2, limit=100),
}


def train(task: Task, seed: int, precision: torch.dtype = torch.float32):
    """Our learner until the goal: completions, seconds, entropy, distinct tokens."""
    policy = make_policy("S", seed=seed)
    prompts = random_prompts(256, policy.vocab_size, seed=seed)
    envs = TextVectorEnv(
        ROWS,
        prompts=[{"tokens": p} for p in prompts],
        reward=lambda episodes: [task.score(e.tokens) for e in episodes],
        tokenizer=Ids(policy.vocab_size),
        max_new_tokens=task.answer,
        stop_tokens=[],
        group_size=8,
    )
    learner = Learner(
        policy,
        envs,
        GRPO(),
        learning_rate=task.rate,
        optimizer=AdamW,
        n_episodes=ROWS,
        precision=precision,
        seed=seed,
    )
    begin = time.perf_counter()
    for _ in range(task.limit):
        update = learner.update()
        if update.score >= GOAL:
            break
    return {
        "completions": update.episodes if update.score >= GOAL else float("inf"),
        "seconds": time.perf_counter() - begin,
        "entropy": update.entropy,
        "distinct": len(torch.unique(update.rollout.tokens[update.rollout.mask])),
    }


def train_trl(task: Task, seed: int, bf16: bool = False):
    """TRL's GRPO until the goal."""
    policy = make_policy("S", seed=seed)
    prompts = random_prompts(256, policy.vocab_size - 2, seed=seed)
    record = run_trl(
        policy,
        prompts,
        task.score,
        stops=False,
        steps=task.limit,
        answer_tokens=task.answer,
        learning_rate=task.trl_rate,
        bf16=bf16,
        seed=seed,
        stop_when=lambda score: score >= GOAL,
    )
    answers = np.concatenate(record["answers"])
    reached = record["scores"][-1] >= GOAL
    return {
        "completions": record["completions"][-1] if reached else float("inf"),
        "seconds": sum(record["seconds"]),
        "entropy": record["entropy"][-1],
        "distinct": len(np.unique(answers)),
    }


SIDES: dict[str, Callable[..., dict[str, float]]] = {
    "textenv fp32": train,
    "TRL GRPO fp32": train_trl,
}
if BF16:
    SIDES |= {
        "textenv bf16": partial(train, precision=torch.bfloat16),
        "TRL GRPO bf16": partial(train_trl, bf16=True),
    }


def main() -> None:
    """Five seeds of both tasks, sides in turn."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.tasks:
        task = TASKS[name]
        results: dict[str, list[dict[str, float]]] = {side: [] for side in arguments.sides}
        for seed in arguments.seeds:
            for side in arguments.sides:
                results[side].append(SIDES[side](task, seed))
                print(name, "seed", seed, side, results[side][-1], flush=True)
        for side, runs in results.items():
            rows.append(
                {
                    "task": name,
                    "side": side,
                    **{figure: median([run[figure] for run in runs]) for figure in runs[0]},
                    "completions, all seeds": " ".join(str(run["completions"]) for run in runs),
                }
            )
    report("learning", rows, seeds=arguments.seeds)


if __name__ == "__main__":
    main()

"""Completions and seconds until two toy tasks are learned, against TRL's GRPO.

"alt": the share of ids whose parity differs from the one before, from 0.5 to 0.9. "even": the
share of even ids, from 0.5 to 0.9, with the entropy of the choices kept above 4 nats, since it can
also be won by collapsing onto one even token. One score per answer; model S, 32 answers of 32
tokens a step. Learning rates were chosen on other seeds for both sides. Entropy and the number of
distinct tokens of the last step are printed beside the result.

Run: taskset -c 0 python -m benchmarks.learning --threads 1
"""

import time

import numpy as np
import torch
from torch.optim import AdamW

from agents import Learner
from agents.algorithms import GRPO
from benchmarks.common import ROWS, Ids, command_line, make_policy, median, random_prompts, report
from benchmarks.peers import run_trl
from textenv import TextVectorEnv

ANSWER, GOAL, LIMIT = 32, 0.9, 400


def alternation(tokens) -> float:
    """Share of ids whose parity differs from the one before."""
    parity = np.asarray(tokens) % 2
    return float((parity[1:] != parity[:-1]).mean())


def evenness(tokens) -> float:
    """Share of even ids."""
    return float((np.asarray(tokens) % 2 == 0).mean())


TASKS = {"alt": alternation, "even": evenness}
OURS = {
    "alt": {"learning_rate": 3e-3, "algorithm": GRPO()},
    "even": {"learning_rate": 1e-2, "algorithm": GRPO()},
}
TRL = {"alt": {"learning_rate": 3e-3}, "even": {"learning_rate": 1e-2}}


def train(task: str, seed: int, algorithm, learning_rate: float, temperature: float = 1.0):
    """Our learner until the goal: completions, seconds, entropy, distinct tokens."""
    policy = make_policy("S", seed=seed)
    prompts = random_prompts(256, policy.vocab_size, seed=seed)
    score = TASKS[task]
    envs = TextVectorEnv(
        ROWS,
        prompts=[{"tokens": p} for p in prompts],
        reward=lambda episodes: [score(e.tokens) for e in episodes],
        tokenizer=Ids(policy.vocab_size),
        max_new_tokens=ANSWER,
        stop_tokens=[],
        group_size=8,
    )
    learner = Learner(
        policy,
        envs,
        algorithm,
        learning_rate=learning_rate,
        optimizer=AdamW,
        n_episodes=ROWS,
        seed=seed,
    )
    begin = time.perf_counter()
    for _ in range(LIMIT):
        update = learner.update()
        if update.episode_return >= GOAL:
            break
    return {
        "completions": update.episodes if update.episode_return >= GOAL else float("inf"),
        "seconds": time.perf_counter() - begin,
        "entropy": update.entropy,
        "distinct": len(torch.unique(update.rollout.tokens[update.rollout.mask])),
    }


def train_trl(task: str, seed: int, learning_rate: float):
    """TRL's GRPO until the goal."""
    policy = make_policy("S", seed=seed)
    prompts = random_prompts(256, policy.vocab_size - 2, seed=seed)
    record = run_trl(
        policy,
        prompts,
        TASKS[task],
        steps=LIMIT,
        answer_tokens=ANSWER,
        learning_rate=learning_rate,
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


def main() -> None:
    """Five seeds of both tasks, sides in turn."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for task in arguments.tasks:
        results = {"textenv": [], "TRL GRPO": []}
        for seed in arguments.seeds:
            results["textenv"].append(train(task, seed, **OURS[task]))
            results["TRL GRPO"].append(train_trl(task, seed, **TRL[task]))
        for side, runs in results.items():
            rows.append(
                {
                    "task": task,
                    "side": side,
                    **{name: median([run[name] for run in runs]) for name in runs[0]},
                    "completions, all seeds": " ".join(str(run["completions"]) for run in runs),
                }
            )
    report("learning", rows, seeds=arguments.seeds)


if __name__ == "__main__":
    main()

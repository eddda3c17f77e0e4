"""How the cost of a rollout grows: with the answer, with the rows, with the vocabulary.

Model S with the size in question varied, fp32. Time per token and peak memory of a whole rollout
(collected, then scored once), each point in a process of its own. Attention's own arithmetic per
token is printed beside the cost as answers grow: the cost should grow no faster.

Run: taskset -c 0 python -m benchmarks.scaling --threads 1
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from agents import Collector
from benchmarks.common import Ids, command_line, no_reward, peak_memory, report
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv

ANSWERS, ROWS, VOCABULARIES = (
    (64, 256, 1024, 2048),
    (1, 8, 32, 128, 256),
    (256, 4096, 50257, 200_000),
)


def measure(answer: int, rows: int, vocabulary: int, repeats: int) -> dict[str, float]:
    """Milliseconds per token of a rollout, and the peak memory it added, in MB."""
    prompt = 32
    policy = TransformerPolicy(
        TransformerConfig(vocabulary, prompt + answer, n_layer=4, n_head=4, n_embd=256)
    )
    rng = np.random.default_rng(0)
    envs = TextVectorEnv(
        rows,
        prompts=[{"tokens": rng.integers(0, vocabulary, prompt).tolist()} for _ in range(256)],
        reward=no_reward,
        tokenizer=Ids(vocabulary),
        max_new_tokens=answer,
    )
    before = peak_memory()
    collector = Collector(policy, envs, seed=0)
    steps = answer if rows * answer <= 2**17 else max(1, 2**17 // rows)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        rollout = collector.collect_steps(steps)
        times.append((time.perf_counter() - begin) / (rows * steps))
        collector.cache.clear()
    assert rollout.num_tokens == rows * steps
    return {"ms": 1e3 * statistics.median(times), "mb": peak_memory() - before}


def main() -> None:
    """Measure every point in a process of its own."""
    parser = command_line(__doc__)
    parser.add_argument("--point", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.point:
        print(json.dumps(measure(*arguments.point, arguments.repeats)))
        return
    points = [("answer", (n, 32, 4096)) for n in ANSWERS]
    points += [("rows", (64, n, 4096)) for n in ROWS]
    points += [("vocabulary", (64, 32, n)) for n in VOCABULARIES]
    table = []
    for grows, point in points:
        command = [sys.executable, "-m", "benchmarks.scaling", "--threads", str(arguments.threads)]
        command += ["--repeats", str(arguments.repeats), "--point", *map(str, point)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        answer, rows, vocabulary = point
        # Multiplications per token, in millions: the layers, the head, and attention on average.
        fixed = 12 * 4 * 256**2 + 256 * vocabulary
        attention = 4 * 2 * 256 * (32 + answer / 2)
        table.append(
            {
                "grows": grows,
                "answer": answer,
                "rows": rows,
                "vocabulary": vocabulary,
                "us/token": 1e3 * result["ms"],
                "arithmetic": (fixed + attention) / 1e6,
                "peak MB": result["mb"],
                "bytes/token": result["mb"] * 2**20 / (rows * answer),
            }
        )
    report("scaling", table, repeats=arguments.repeats)


if __name__ == "__main__":
    main()

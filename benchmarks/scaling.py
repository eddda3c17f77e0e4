"""How the cost of a rollout grows: with the answer, with the rows, with the vocabulary.

Model S with the size in question varied, fp32. Time per token and peak memory of a whole rollout
(collected, without an update), each point in a process of its own. As answers grow, a token may
cost more, since attention reads more: a constant amount for every further position before it.

Run: taskset -c 0 python -m benchmarks.scaling --threads 1
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from agents import Collector
from benchmarks.common import Ids, command_line, no_reward, peak_memory, report
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv

PROMPT = 32
ANSWERS, ROWS, VOCABULARIES = (
    (64, 256, 1024, 2048),
    (1, 8, 32, 128, 256),
    (256, 4096, 50257, 200_000),
)


def measure(answer: int, rows: int, vocabulary: int, repeats: int) -> dict[str, float]:
    """Milliseconds per token of a rollout, and the peak memory it added, in MB."""
    policy = TransformerPolicy(
        TransformerConfig(vocabulary, PROMPT + answer, n_layer=4, n_head=4, n_embd=256)
    )
    rng = np.random.default_rng(0)
    envs = TextVectorEnv(
        rows,
        prompts=[{"tokens": rng.integers(0, vocabulary, PROMPT).tolist()} for _ in range(256)],
        reward=no_reward,
        tokenizer=Ids(vocabulary),
        max_new_tokens=answer,
    )
    before = peak_memory()
    collector = Collector(policy, envs, seed=0)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        rollout = collector.collect_steps(answer)
        times.append((time.perf_counter() - begin) / (rows * answer))
        collector.cache.clear()
    assert rollout.num_tokens == rows * answer
    return {"ms": 1e3 * statistics.median(times), "mb": peak_memory() - before}


def points() -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The quantity that grows, and each point's tokens of an answer, rows and vocabulary size."""
    yield from (("answer", (n, 8, 4096)) for n in ANSWERS)
    yield from (("rows", (64, n, 4096)) for n in ROWS)
    yield from (("vocabulary", (64, 32, n)) for n in VOCABULARIES)


def measure_all(threads: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of the table, each measured in a process of its own."""
    shortest: dict[str, float] = {}
    for grows, point in points():
        command = [sys.executable, "-m", "benchmarks.scaling", "--threads", str(threads)]
        command += ["--repeats", str(repeats), "--point", *map(str, point)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        answer, rows, vocabulary = point
        microseconds, read = 1e3 * result["ms"], PROMPT + answer / 2
        if grows == "answer":
            shortest = shortest or {"us": microseconds, "read": read}
        more = read - shortest["read"]
        yield {
            "grows": grows,
            "answer": answer,
            "rows": rows,
            "vocabulary": vocabulary,
            "us/token": microseconds,
            # Attention reads all positions before a token, so its cost is proportional to
            # their mean number: this must stay the same, or fall, as answers grow.
            "us/token per 100 positions more": (
                100 * (microseconds - shortest["us"]) / more if grows == "answer" and more else ""
            ),
            "peak MB": result["mb"],
            "kB/token": result["mb"] * 2**10 / (rows * answer),
        }


def main() -> None:
    """Measure every point in a process of its own."""
    parser = command_line(__doc__)
    parser.add_argument("--point", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.point:
        print(json.dumps(measure(*arguments.point, arguments.repeats)))
        return
    rows = measure_all(arguments.threads, arguments.repeats)
    report("scaling", rows, seed=0, repeats=arguments.repeats)


if __name__ == "__main__":
    main()

"""Several processes that train as one: the speed of a GRPO step, and the memory of each.

`speed`: a step of GRPO on model S, answers of 64 tokens; each side in processes of its own, one
after the other, in rounds. `2 x 16` is two processes that share 32 rows. What a process waits for
others before gradients are summed, and the sum itself, are timed apart. The ratios of processor
time say what is left to gain where other work shares the cores.

`memory`: a Llama of 135M parameters under AdamW and GRPO, in one process and sharded over four
(`agents.distribution.sharded.shard`), with the same global batch. Bytes that are held are counted
from the tensors; peaks are resident memory above the level after imports, in a rollout and in the
rest of an update. Both sides give freed memory back to the system
(`agents.distribution.sharded.return_freed_memory`), which `shard` asks for.

Run: python -m benchmarks.distributed speed
     python -m benchmarks.distributed memory
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.optim import AdamW

from benchmarks.common import command_line, even_share, make_policy, random_prompts, report

ANSWER, GROUP = 64, 8


# -------------------------------------------------------------------- processes


def in_processes(
    count: int, threads: int, measure: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """What `measure` returns in each of `count` processes that know each other."""
    # Read by the libraries when a process begins.
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_run, (count, threads, folder, measure), nprocs=count)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(count)]


def _run(
    rank: int, count: int, threads: int, folder: str, measure: Callable[..., dict[str, Any]]
) -> None:
    torch.set_num_threads(threads)
    if count > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count
        )
    torch.save(measure(), Path(folder) / f"{rank}.pt")
    if count > 1:
        dist.destroy_process_group()


# -------------------------------------------------------------------- speed


def step_of_grpo(rows: int, steps: int) -> dict[str, Any]:
    """Seconds of a step of GRPO on `rows` rows in all, and what of it goes to the others."""
    from agents import GRPO, Learner
    from agents.distribution import Ranks
    from textenv import TextVectorEnv

    policy = make_policy("S")
    envs = TextVectorEnv(
        rows,
        prompts=[{"tokens": prompt} for prompt in random_prompts(64, policy.vocab_size)],
        reward=lambda episodes: [even_share(e.tokens.tolist()) for e in episodes],
        tokenizer=policy.tokenizer,
        max_new_tokens=ANSWER,
        group_size=GROUP,
    )
    learner = Learner(policy, envs, GRPO(), n_episodes=rows, learning_rate=1e-3, seed=0)
    spent = {"waiting": 0.0, "all-reduce": 0.0}
    plain = Ranks.sum_gradients

    def timed(self: Ranks, parameters: Any) -> None:
        begin = time.perf_counter()
        self.wait()
        met = time.perf_counter()
        plain(self, parameters)
        spent["waiting"] += met - begin
        spent["all-reduce"] += time.perf_counter() - met

    Ranks.sum_gradients = timed  # type: ignore[method-assign]
    learner.update()  # compiles, and fills buffers
    spent.update(dict.fromkeys(spent, 0.0))
    seconds, processor, rollouts = [], [], []
    for _ in range(steps):
        begin, used = time.perf_counter(), time.process_time()
        update = learner.update()
        seconds.append(time.perf_counter() - begin)
        processor.append(time.process_time() - used)
        rollouts.append(update.metrics["rollout_seconds"])
    return {
        "step": statistics.median(seconds),
        "processor": statistics.median(processor),
        "rollout": statistics.median(rollouts),
        **{name: value / steps for name, value in spent.items()},
    }


SIDES = {  # processes, threads of each, rows in all
    "1 x 32": (1, 1, 32),
    "2 x 16": (2, 1, 32),
    "2 x 32": (2, 1, 64),
    "1 x 32, 2 threads": (1, 2, 32),
}


def speed(arguments: argparse.Namespace) -> None:
    """Measure all sides in rounds, and print their figures and ratios."""
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.repeats):
        for side, (count, threads, rows) in SIDES.items():
            ranks = in_processes(count, threads, partial(step_of_grpo, rows, arguments.steps))
            slowest = max(ranks, key=lambda rank: rank["step"])
            rounds[side].append(slowest)

    def ratio(side: str, peer: str, of: str = "step") -> float:
        tokens = SIDES[side][2] / SIDES[peer][2]
        pairs = zip(rounds[side], rounds[peer], strict=True)
        return statistics.median(tokens * its[of] / mine[of] for mine, its in pairs)

    def rows() -> Iterator[dict[str, Any]]:
        for side, measured in rounds.items():
            names = measured[0]
            yield {"side": side} | {
                f"{name}, s": statistics.median(one[name] for one in measured) for name in names
            }

    report(
        "distributed",
        rows(),
        seed=0,
        repeats=arguments.repeats,
        steps=arguments.steps,
        ratios={
            "2 x 16 to 1 x 32": ratio("2 x 16", "1 x 32"),
            "2 x 32 to 1 x 32": ratio("2 x 32", "1 x 32"),
            "2 x 16 to 1 x 32, 2 threads": ratio("2 x 16", "1 x 32, 2 threads"),
            "2 x 16 to 1 x 32, processor time of the slower": ratio(
                "2 x 16", "1 x 32", "processor"
            ),
            "2 x 32 to 1 x 32, processor time of the slower": ratio(
                "2 x 32", "1 x 32", "processor"
            ),
        },
    )


# -------------------------------------------------------------------- memory


def held(rows: int, layers: int) -> dict[str, Any]:
    """Bytes that a rank holds, and peaks of resident memory, in MB."""
    from agents import GRPO, Learner
    from agents.distribution.sharded import return_freed_memory, shard
    from benchmarks.common import Ids
    from policies import TransformerConfig, TransformerPolicy
    from textenv import TextVectorEnv

    return_freed_memory()
    level = _resident("VmRSS")
    shape = TransformerConfig.llama(
        49152, 96, n_layer=layers, n_head=9, n_kv_head=3, n_embd=576, mlp_width=1536
    )
    policy = TransformerPolicy(shape, tokenizer=Ids(shape.vocab_size))
    policy.transformer.recompute = True
    if dist.is_initialized():
        shard(policy)
    envs = TextVectorEnv(
        rows,
        prompts=[{"tokens": prompt} for prompt in random_prompts(8, policy.vocab_size)],
        reward=lambda episodes: [even_share(e.tokens.tolist()) for e in episodes],
        tokenizer=policy.tokenizer,
        max_new_tokens=32,
        group_size=2,
    )
    learner = Learner(
        policy, envs, GRPO(), n_episodes=rows, learning_rate=1e-4, optimizer=AdamW, seed=0
    )
    learner.update()  # the moments are made
    _reset_peak()
    rollout = learner.collect()
    playing = _resident("VmHWM") - level
    _reset_peak()
    learner.learn_from(rollout)
    learning = _resident("VmHWM") - level
    tensors = [*policy.parameters()]
    tensors += [p.grad for p in policy.parameters() if p.grad is not None]
    tensors += [
        value
        for state in learner.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    return {
        "held": sum(_bytes(tensor) for tensor in tensors) / 2**20,
        "rollout": playing,
        "update": learning,
    }


def _bytes(tensor: torch.Tensor) -> int:
    here: Any = tensor
    part: torch.Tensor = here.to_local() if hasattr(here, "to_local") else tensor
    return part.numel() * part.element_size()


def _resident(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def memory(arguments: argparse.Namespace) -> None:
    """Measure one process, and the largest of four."""
    measured = {}
    for side, count in (("one process", 1), ("a rank of 4", 4)):
        ranks = in_processes(count, 1, partial(held, arguments.rows, arguments.layers))
        measured[side] = {name: max(rank[name] for rank in ranks) for name in ranks[0]}
    one, four = measured.values()
    rows = [
        {"side": side} | {f"{name}, MB": value for name, value in figures.items()}
        for side, figures in measured.items()
    ]
    ratios = {name: four[name] / one[name] for name in one}
    report("distributed", rows, seed=0, rows_in_all=arguments.rows, ratios=ratios)


def main() -> None:
    """Measure what the first argument names."""
    parser = command_line(__doc__ or "")
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--steps", type=int, default=3, help="Steps of a round.")
    parser.add_argument("--rows", type=int, default=16, help="Rows in all, for memory.")
    parser.add_argument("--layers", type=int, default=30, help="Layers of the network, for memory.")
    arguments = parser.parse_args()
    {"speed": speed, "memory": memory}[arguments.what](arguments)


if __name__ == "__main__":
    main()

"""Shared by the benchmarks: the models of the comparison, timing, and the report."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from policies import TransformerConfig, TransformerPolicy

PACKAGES = ("textenv", "torch", "numpy", "gymnasium", "transformers", "trl", "stable-baselines3")
ROWS, MIN_PROMPT, MAX_PROMPT, MIN_ANSWER, MAX_ANSWER = 32, 16, 32, 8, 64

T = TypeVar("T")


class Ids:
    """A vocabulary of bare token ids: the benchmarks do not measure text."""

    stop_token = None

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self.name = self.fingerprint = f"ids-{vocab_size}"

    def encode(self, text: str) -> list[int]:
        """Ids written as numbers."""
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """An empty text: the benchmarks do not measure text."""
        return ""


def config(model: str, context: int = 256) -> TransformerConfig:
    """Model S (4.3M parameters) or M (30M)."""
    shapes = {
        "S": {"vocab_size": 4096, "n_layer": 4, "n_head": 4, "n_embd": 256},
        "M": {"vocab_size": 50257, "n_layer": 6, "n_head": 6, "n_embd": 384},
    }
    return TransformerConfig(context=context, **shapes[model])


def make_policy(model: str, seed: int = 0, context: int = 256) -> TransformerPolicy:
    """A policy of ours with random weights."""
    shape = config(model, context)
    return TransformerPolicy(shape, tokenizer=Ids(shape.vocab_size), seed=seed)


def as_gpt2(policy: TransformerPolicy) -> Any:
    """The same network with the same weights, as a GPT2LMHeadModel of transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = policy.config
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.context,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    ours, theirs = policy.transformer, model.transformer
    with torch.no_grad():
        theirs.wte.weight.copy_(ours.token_embedding.weight)
        theirs.wpe.weight.copy_(ours.position_embedding.weight)
        pairs = [(ours.ln_f, theirs.ln_f)]
        for block, other in zip(ours.blocks, theirs.h, strict=True):
            pairs += [(block.ln_1, other.ln_1), (block.ln_2, other.ln_2)]
            for linear, conv in (
                (block.qkv, other.attn.c_attn),
                (block.attn_out, other.attn.c_proj),
                (block.mlp_in, other.mlp.c_fc),
                (block.mlp_out, other.mlp.c_proj),
            ):
                conv.weight.copy_(linear.weight.T)
                conv.bias.copy_(linear.bias)
        for mine, its in pairs:
            its.weight.copy_(mine.weight)
            its.bias.copy_(mine.bias)
    return model.eval()


def no_reward(episodes: Sequence[Any]) -> list[float]:
    """A reward for benchmarks that measure something else."""
    return [0.0] * len(episodes)


def command_line(description: str) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks: threads and rounds."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def random_prompts(count: int, vocab_size: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 16 to 32 random tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(MIN_PROMPT, MAX_PROMPT + 1, count)
    return [rng.integers(0, vocab_size, length).tolist() for length in lengths]


def interleaved(sides: Mapping[str, Callable[[], T]], repeats: int = 5) -> dict[str, list[T]]:
    """Run every side in turn, `repeats` times; each call returns its own figure, such as a rate.

    Sides alternate so that whatever else the machine does falls on all of them alike. One round
    before the first is thrown away.
    """
    for run in sides.values():
        run()
    figures: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            figures[name].append(run())
    return figures


def ratio(figures: Mapping[str, Sequence[float]], side: str, peer: str) -> float:
    """Median over the rounds of the quotient of two sides."""
    return statistics.median(ratios(figures, side, peer))


def ratios(figures: Mapping[str, Sequence[float]], side: str, peer: str) -> list[float]:
    """The quotient of two sides in each round."""
    return [a / b for a, b in zip(figures[side], figures[peer], strict=True)]


def run_on_models(
    name: str, description: str, measure: Callable[[list[str], int], Iterable[Mapping[str, Any]]]
) -> None:
    """The command of a benchmark of our own models: `measure` takes their names and the rounds."""
    parser = command_line(description)
    parser.add_argument("--models", nargs="+", default=["S", "M"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments.models, arguments.repeats)
    report(name, rows, seed=0, repeats=arguments.repeats)


def even_share(tokens: Sequence[int]) -> float:
    """Share of even ids: a reward that costs nothing and differs between answers."""
    return float(sum(token % 2 == 0 for token in tokens)) / max(len(tokens), 1)


def timed(run: Callable[[], Any]) -> float:
    """Seconds that `run` takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def report(name: str, rows: Iterable[Mapping[str, Any]], **facts: Any) -> None:
    """Print a table, then one JSON line with the same figures and the data needed to repeat them.

    Args:
        name: Name of the benchmark.
        rows: Rows of the table; an iterator measures each row when it is asked for it, and the row
            is shown at once.
        **facts: What else belongs into the JSON line.
    """
    progress, done = Console(stderr=True), []
    for row in rows:
        done.append(row)
        shown = ", ".join(f"{column} {_shown(value)}" for column, value in row.items())
        progress.print(f"[{time.strftime('%H:%M:%S')}] {shown}", soft_wrap=True, markup=False)
    table = Table(title=name)
    for column in done[0]:
        table.add_column(column, justify="left" if isinstance(done[0][column], str) else "right")
    for row in done:
        table.add_row(*(_shown(value) for value in row.values()))
    Console().print(table)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    machine = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    facts |= {"machine": machine, "versions": versions}
    print(json.dumps({"benchmark": name, "rows": done, **facts}))


def peak_memory() -> float:
    """The most memory that this process has held, in MB.

    Not `ru_maxrss`: a process begins with the figure of the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def processor() -> str:
    """Name of the processor, and its extensions that matter here."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    first = cpuinfo.read_text().split("\n\n")[0].splitlines()
    pairs = (line.split(":", 1) for line in first if ":" in line)
    named = {key.strip(): value.strip() for key, value in pairs}
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = ", ".join(flag for flag in known if flag in named.get("flags", "").split())
    return f"{named.get('model name', '?')} ({flags})"


BF16 = "bf16" in processor()
"""Whether the processor multiplies in bf16; emulated bf16 is ten times slower than fp32."""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)

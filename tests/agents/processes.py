"""Running a function in several processes that know each other."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function`, of a module, returns in each of `count` processes, by rank.

    Without compiled loops: those that a process compiles round otherwise than those that the next
    one finds in Numba's cache, and float32 log-probabilities would differ in the last digit.
    """
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        mp.spawn(_run, (count, folder, function, arguments), nprocs=count)
        paths = [Path(folder) / f"{rank}.pt" for rank in range(count)]
        return [torch.load(path, weights_only=False) for path in paths]


def _run(
    rank: int, count: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count
    )
    torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()

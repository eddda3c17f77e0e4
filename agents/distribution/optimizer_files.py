"""The state of a sharded network's optimiser on disk, for any number of processes.

Each rank writes its parts, in the form of `torch.distributed.checkpoint` with safetensors; whoever
reads them takes the parts that it needs, also without a process group.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from agents.distribution.gathering import divided
from agents.distribution.ranks import Ranks, speaking
from textenv.errors import CheckpointError
from textenv.files import reason

SETTINGS = "settings.json"


def write_optimizer(folder: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Write the state of `optimizer`, of parameters of `module`; every rank of a group calls it.

    Raises:
        OSError: A rank cannot write its part.
        LostProcessError: The first rank cannot write.
    """
    names = _names(module, optimizer)
    state = {
        f"{names[id(parameter)]}/{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        | {"params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(json.dumps(groups), encoding="utf-8")

    Ranks.found().by_first(begin)
    if not state:  # before the first step
        return
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with speaking():
            save(state, storage_writer=writer, no_dist=not dist.is_initialized())
    except CheckpointException as error:  # no Exception: it would end the training
        rank, (wrong, _) = next(iter(error.failures.items()))
        raise OSError(f"in process {rank}: {wrong}") from error


def read_optimizer(folder: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Give `optimizer` the state that `write_optimizer` wrote, in however many processes.

    Raises:
        CheckpointError: Files are missing or damaged, or of an optimiser of other parameters.
    """
    by_name = {name: p for p, name in _pairs(module, optimizer)}
    try:
        groups = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if [name for group in groups for name in group["params"]] != list(by_name):
            raise CheckpointError(f"the optimiser in {folder} is of other parameters")
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        optimizer.state.clear()
        if not any(folder.glob("*.safetensors")):
            return
        reader = HuggingFaceStorageReader(str(folder))
        known = reader.read_metadata().state_dict_metadata
        state = {name: _empty(name, known[name], by_name) for name in sorted(known)}
        with warnings.catch_warnings():  # that there is no process group
            warnings.simplefilter("ignore", UserWarning)
            load(state, storage_reader=reader, no_dist=not dist.is_initialized())
    except (OSError, ValueError, KeyError, CheckpointException) as error:
        why = reason(error) if isinstance(error, Exception) else str(error)
        raise CheckpointError(f"{folder} holds no optimiser that can be read: {why}") from error
    for name, value in state.items():
        parameter, _, key = name.rpartition("/")
        optimizer.state[by_name[parameter]][key] = value


def load_whole_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """As `optimizer.load_state_dict`, for parameters that may be sharded while the state is not."""
    numbered = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in saved.items() if key != "params"})
    optimizer.state.clear()
    for number, values in state["state"].items():
        parameter, group = numbered[int(number)]
        # The count of steps is on the CPU, unless the step is one that reads it elsewhere.
        apart = set() if group.get("fused") or group.get("capturable") else {"step"}
        optimizer.state[parameter] = {
            key: divided(value if key in apart else value.to(parameter.device), parameter)
            for key, value in values.items()
        }


def _pairs(module: nn.Module, optimizer: Optimizer) -> list[tuple[Tensor, str]]:
    """The optimiser's parameters in its order, each with its name in the module."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    return [(p, names[id(p)]) for p in held]


def _names(module: nn.Module, optimizer: Optimizer) -> dict[int, str]:
    return {id(parameter): name for parameter, name in _pairs(module, optimizer)}


def _empty(name: str, known: Any, by_name: Mapping[str, Tensor]) -> Tensor:
    """Where a part of the state goes: divided as its parameter is."""
    like = by_name[name.rpartition("/")[0]]
    nothing = torch.zeros(known.size, dtype=known.properties.dtype, device=like.device)
    return divided(nothing, like)

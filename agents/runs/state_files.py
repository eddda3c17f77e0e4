"""Nested states on disk: safetensors for arrays, JSON for the rest, never pickles."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from policies.policy_files import write_tensors
from textenv.errors import CheckpointError
from textenv.files import reason

FORMAT = 1

QUANTISED = {
    "OptimState8bit": "torchao.optim.subclass_8bit",
    "OptimState4bit": "torchao.optim.subclass_4bit",
    "OptimStateFp8": "torchao.optim.subclass_fp8",
}
"""Classes of tensors that consist of others, and their modules; a file can name no other class."""


def write_state(folder: str | Path, name: str, state: dict[str, Any]) -> None:
    """Write `state` into `folder`, which is made if needed, as `name.json` and `name.safetensors`.

    Args:
        folder: Where the two files go.
        name: File name without its ending.
        state: Dicts, lists, arrays, tensors and what JSON can hold, nested; tuples become lists.

    Raises:
        CheckpointError: A tensor is of a class that cannot be saved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, torch.Tensor] = {}
    plain = _take_arrays({"format": FORMAT, **state}, "", arrays)
    write_tensors(arrays, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")


def read_state(folder: str | Path, name: str) -> dict[str, Any]:
    """The state that `write_state` wrote.

    Raises:
        CheckpointError: Files are missing, damaged, or of another format.
    """
    folder = Path(folder)
    try:
        plain = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        state: dict[str, Any] = _put_arrays(plain, load_file(folder / f"{name}.safetensors"))
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has checkpoint format {state['format']}, this version reads {FORMAT}"
            )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} holds no {name} that can be read: {reason(error)}"
        ) from error
    return state


def _take_arrays(value: Any, path: str, arrays: dict[str, torch.Tensor]) -> Any:
    """`value` with every array moved to `arrays` and a note of where it went."""
    if isinstance(value, dict):
        # Keys that are not strings, such as the optimiser's parameter numbers, must survive JSON.
        return {"dict": [[k, _take_arrays(v, f"{path}/{k}", arrays)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_take_arrays(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, np.ndarray):
        tag = "array" if value.dtype != np.uint64 else "uint64"
        stored: NDArray[Any] = value if tag == "array" else value.view(np.int64)
        arrays[path] = torch.from_numpy(np.ascontiguousarray(stored)).clone()
        return {tag: path}
    if is_traceable_wrapper_subclass(value):
        return {"quantised": _take_quantised(value, path, arrays)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.Tensor):
        arrays[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    return value


def _put_arrays(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_take_arrays`."""
    if not isinstance(value, dict):
        return value
    (tag, content), *_ = value.items()
    if tag == "dict":
        return {k: _put_arrays(v, arrays) for k, v in content}
    if tag == "list":
        return [_put_arrays(v, arrays) for v in content]
    if tag == "quantised":
        return _put_quantised(content, arrays)
    if tag == "dtype":
        return getattr(torch, content)
    tensor = arrays[content]
    if tag == "tensor":
        return tensor
    array = tensor.numpy()
    return array.view(np.uint64) if tag == "uint64" else array


def _take_quantised(value: Any, path: str, arrays: dict[str, torch.Tensor]) -> list[Any]:
    """Name, tensors and other arguments of a tensor that consists of others."""
    name = type(value).__name__
    if type(value).__module__ != QUANTISED.get(name):
        raise CheckpointError(
            f"{path} is a {type(value).__module__}.{name}, which cannot be saved: use an "
            f"optimiser whose states are plain tensors, or one of {sorted(QUANTISED)} (torchao)"
        )
    names, arguments = value.__tensor_flatten__()
    inner = {name: getattr(value, name) for name in names}
    return [name, _take_arrays(inner, path, arrays), _take_arrays(arguments, path, arrays)]


def _put_quantised(content: list[Any], arrays: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_take_quantised`."""
    name, inner, arguments = content
    try:
        made = getattr(importlib.import_module(QUANTISED[name]), name)
    except (ImportError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"the optimiser's states are of torchao's class {name}, which cannot be imported "
            f"({type(error).__name__}: {error}): pip install torchao"
        ) from error
    return made.__tensor_unflatten__(_put_arrays(inner, arrays), _put_arrays(arguments, arrays))

"""A learner on disk: safetensors for arrays, JSON for the rest."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from textenv.errors import CheckpointError, VocabularyMismatchError

if TYPE_CHECKING:
    from agents.learner import Learner

ARRAYS, STATE, POLICY, REFERENCE = "learner.safetensors", "learner.json", "policy", "reference"
FORMAT = 1


def save_learner(
    learner: "Learner", folder: str | Path, runtime: dict[str, Any] | None = None
) -> Path:
    """Write weights, optimiser, counters, generators and running episodes into `folder`.

    Args:
        learner: What to save.
        folder: Made if needed; a learner that lies there is replaced.
        runtime: An earlier `learner.runtime_state()` to save instead of the present one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    learner.policy.save(folder / POLICY)
    if learner.reference is not None:
        learner.reference.save(folder / REFERENCE)
    arrays: dict[str, torch.Tensor] = {}
    state = {
        "format": FORMAT,
        "optimizer_kind": type(learner.optimizer).__name__,
        "optimizer": learner.optimizer.state_dict(),
        "runtime": runtime or learner.runtime_state(),
    }
    plain = _take_arrays(state, "", arrays)
    save_file(arrays, folder / ARRAYS)
    (folder / STATE).write_text(json.dumps(plain), encoding="utf-8")
    return folder


def load_learner(learner: "Learner", folder: str | Path) -> None:
    """Restore a learner that was made with the same arguments as the saved one.

    Raises:
        CheckpointError: Files are missing, damaged or of another learner.
        VocabularyMismatchError: It was saved with another vocabulary.
    """
    folder = Path(folder)
    try:
        plain = json.loads((folder / STATE).read_text(encoding="utf-8"))
        state = _put_arrays(plain, load_file(folder / ARRAYS))
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has checkpoint format {state['format']}, this version reads {FORMAT}"
            )
        kind = state["optimizer_kind"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} holds no learner that can be read ({type(error).__name__}: {error})"
        ) from error
    if kind != type(learner.optimizer).__name__:
        raise CheckpointError(
            f"the learner in {folder} was made with other arguments: its optimiser is {kind}, this "
            f"one's {type(learner.optimizer).__name__}"
        )
    learner.policy.load_weights(folder / POLICY)
    if learner.reference is not None:
        learner.reference.load_weights(folder / REFERENCE)
    try:
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.load_runtime_state(state["runtime"])
    except VocabularyMismatchError:
        raise
    except (ValueError, KeyError, TypeError, CheckpointError) as error:
        raise CheckpointError(
            f"the learner in {folder} was made with other arguments: {error}"
        ) from error


def _take_arrays(value: Any, path: str, arrays: dict[str, torch.Tensor]) -> Any:
    """`value` with every array moved to `arrays` and a note of where it went."""
    if isinstance(value, dict):
        # Keys that are no strings, as the optimiser's parameter numbers, must survive JSON.
        return {"dict": [[k, _take_arrays(v, f"{path}/{k}", arrays)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_take_arrays(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, np.ndarray):
        kind = "array" if value.dtype != np.uint64 else "uint64"
        stored: NDArray[Any] = value if kind == "array" else value.view(np.int64)
        arrays[path] = torch.from_numpy(np.ascontiguousarray(stored)).clone()
        return {kind: path}
    if isinstance(value, torch.Tensor):
        arrays[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    return value


def _put_arrays(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_take_arrays`."""
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "dict":
        return {k: _put_arrays(v, arrays) for k, v in content}
    if kind == "list":
        return [_put_arrays(v, arrays) for v in content]
    tensor = arrays[content]
    if kind == "tensor":
        return tensor
    array = tensor.numpy()
    return array.view(np.uint64) if kind == "uint64" else array

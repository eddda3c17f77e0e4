"""The running episodes of several processes as those of one, and the other way round.

A checkpoint does not know how many processes wrote it: it holds what the collector of the whole
environment would. A state is nested dicts. Its arrays and lists have an entry for each row, or for
each group, and dicts whose names are numbers have one for some rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.collector import Closed, together_in_order
from textenv.errors import CheckpointError


def joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of a collector of all rows, from those of the collectors of shares."""
    if len(states) == 1:
        return dict(states[0])
    masks = [[np.asarray(mask).tobytes() for mask in state["masks"]] for state in states]
    parts = [Closed(s["closed"], known) for s, known in zip(states, masks, strict=True)]
    closed = together_in_order(parts)
    numbers = {mask: number for number, mask in enumerate(closed.masks)}
    rest = []
    for state, known in zip(states, masks, strict=True):
        new = np.array([numbers[mask] for mask in known])
        opened = state["open"] | {"mask_ids": new[state["open"]["mask_ids"]]}
        rest.append({**state, "open": opened, "masks": None, "closed": None})
    together: dict[str, Any] = _joined(rest, [len(s["waiting"]) for s in states])
    packed = [np.frombuffer(mask, np.uint8).copy() for mask in closed.masks]
    return together | {"masks": packed, "closed": closed.sequences}


def part_of(state: Mapping[str, Any], index: int, of: int) -> dict[str, Any]:
    """The state of a collector of part `index` of `of` parts of the rows.

    Raises:
        CheckpointError: The rows cannot be divided so.
    """
    if of == 1:
        return dict(state)
    rows = len(state["waiting"])
    if rows % of:
        raise CheckpointError(
            f"the checkpoint has {rows} rows, which cannot be divided among {of} processes"
        )
    rest: dict[str, Any] = _part({**state, "masks": None, "closed": None}, index, of, rows // of)
    groups = 1 if state["env"] is None else len(state["env"]["streams"]["keys"])

    def owner(sequence: Mapping[str, Any]) -> int:
        # A group is completed where its rows are. Those without one may be anywhere.
        return max(sequence["groups"], 0) % groups * of // groups

    closed = [sequence for sequence in state["closed"] if owner(sequence) == index]
    return rest | {"masks": state["masks"], "closed": closed}


def _joined(values: Sequence[Any], rows: Sequence[int]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    if isinstance(first, list):
        return [entry for value in values for entry in value]
    if isinstance(first, dict) and _by_row([name for value in values for name in value]):
        begins = np.cumsum([0, *rows])
        return {
            str(int(name) + int(begin)): entry
            for value, begin in zip(values, begins, strict=False)
            for name, entry in value.items()
        }
    if isinstance(first, dict):
        return {name: _joined([value[name] for value in values], rows) for name in first}
    if any(value != first for value in values):
        raise CheckpointError(
            f"the processes have different states, {values}, which one process cannot go on with"
        )
    return first


def _part(value: Any, index: int, of: int, rows: int) -> Any:
    if isinstance(value, np.ndarray | list):
        length = len(value) // of
        return value[index * length : (index + 1) * length]
    if isinstance(value, dict) and _by_row(list(value)):
        first = index * rows
        own = {int(name) - first: entry for name, entry in value.items()}
        return {str(name): entry for name, entry in own.items() if 0 <= name < rows}
    if isinstance(value, dict):
        return {name: _part(entry, index, of, rows) for name, entry in value.items()}
    return value


def _by_row(names: Sequence[Any]) -> bool:
    return bool(names) and all(isinstance(name, str) and name.isdecimal() for name in names)

"""Infos in the layout of Gymnasium's vector environments."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def row_marks(count: int, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """True at `rows`, shape (count,), bool."""
    marks = np.zeros(count, dtype=bool)
    marks[rows] = True
    return marks


def object_array(count: int, rows: NDArray[np.intp], values: Sequence[Any]) -> NDArray[Any]:
    """`values` at `rows` and None elsewhere, shape (count,), object."""
    array = np.empty(count, dtype=object)
    # One by one: assigned all at once, numpy would take values that are arrays apart.
    for row, value in zip(rows.tolist(), values, strict=True):
        array[row] = value
    return array


def masked_info(info: Mapping[str, Any], rows: NDArray[np.bool_]) -> dict[str, Any]:
    """`info` with a mask beside every entry.

    Gymnasium's vector environments put all rows' values of a key into one array. The same key with
    an underscore before it says which rows have the entry, shape (num_envs,).
    """
    masked: dict[str, Any] = {}
    for key, value in info.items():
        masked[key] = value
        masked[f"_{key}"] = rows.copy()
    return masked


def joined(infos: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Infos of some rows and of others as one; entries of both have arrays, no mappings."""
    both = {**infos, **more}
    for key in infos.keys() & more.keys():
        if key.startswith("_"):
            both[key] = infos[key] | more[key]
        else:
            both[key] = np.where(more[f"_{key}"], more[key], infos[key])
    return both


def row_info(info: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The entries that `row` has, as the info of a single environment."""
    single: dict[str, Any] = {}
    for key, value in info.items():
        if key.startswith("_") or not info[f"_{key}"][row]:
            continue
        if isinstance(value, Mapping):
            single[key] = row_info(value, row)
        else:
            item = value[row]
            single[key] = item.item() if isinstance(item, np.generic) else item
    return single

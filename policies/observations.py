"""Observations as rows of ids, refused where a policy cannot read them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def token_ids(observations: ArrayLike, pad_token: int) -> NDArray[np.int64]:
    """Observations (num_rows, L) of any library and number type as ids.

    Libraries turn observations into floats; those that hold ids exactly are cast back.

    Args:
        observations: Rows, right-padded.
        pad_token: The padding, which is the largest id.

    Raises:
        ValueError: The number type cannot tell all ids apart, or a number is not whole.
    """
    if isinstance(observations, Tensor):
        return token_tensor(observations, pad_token).cpu().numpy()
    given = np.asarray(observations)
    if given.dtype == np.int64:
        return given
    if given.dtype.kind in "iuf":
        info: Any = np.finfo(given.dtype) if given.dtype.kind == "f" else np.iinfo(given.dtype)
        _check_holds(info, given.dtype.name, pad_token)
    with np.errstate(invalid="ignore"):  # NaN is refused below
        ids = given.astype(np.int64)
    if given.dtype.kind == "f" and (wrong := ids != given).any():
        raise _not_an_id(given[wrong][0])
    return ids


def token_tensor(observations: Tensor, pad_token: int) -> Tensor:
    """The same for a tensor, which stays on its device; (num_rows, L), int64."""
    if observations.dtype == torch.int64:
        return observations
    floats = observations.is_floating_point()
    _check_holds(
        torch.finfo(observations.dtype) if floats else torch.iinfo(observations.dtype),
        str(observations.dtype).removeprefix("torch."),
        pad_token,
    )
    ids = observations.long()
    if floats and (wrong := ids != observations).any():
        raise _not_an_id(observations[wrong][0].item())
    return ids


def _check_holds(info: Any, name: str, pad_token: int) -> None:
    """Refuse a number type, described as numpy and torch do, that rounds or wraps some ids."""
    # A float has as many whole numbers side by side as its digits reach.
    largest = int(2 / info.eps) if hasattr(info, "eps") else info.max
    if pad_token > largest:
        raise ValueError(
            f"observations are {name}, which holds whole numbers up to {largest} only, but ids go "
            f"up to {pad_token}: hand over int64, or float32"
        )


def _not_an_id(number: float) -> ValueError:
    return ValueError(
        f"observations hold {number}, which is not a token id: remove what changes them, such as a "
        "wrapper that scales or normalises observations"
    )


def checked_lengths(ids: NDArray[np.int64], pad_token: int, context: int) -> NDArray[np.int64]:
    """Tokens of each row, shape (num_rows,).

    Args:
        ids: Rows, shape (num_rows, L), right-padded.
        pad_token: The padding; tokens are the ids below it.
        context: Longest row that the policy reads.

    Raises:
        ValueError: A row is empty or too long, or an id is not a token.
    """
    lengths: NDArray[np.int64] = (ids != pad_token).sum(1)
    if not lengths.all():
        raise ValueError(
            f"row {int(lengths.argmin())} of the observations is empty: a policy needs at least "
            "one token to go on from"
        )
    if lengths.max() > context:
        raise ValueError(
            f"row {int(lengths.argmax())} of the observations has {lengths.max()} tokens, the "
            f"policy's context is {context}: make it with a longer context"
        )
    if ids.min() < 0 or ids.max() > pad_token:
        raise ValueError(
            f"observations hold ids from {ids.min()} to {ids.max()}; the policy knows tokens 0 to "
            f"{pad_token - 1} and the padding {pad_token}"
        )
    return lengths


def padded_rows(rows: Sequence[Sequence[int]], pad_token: int) -> Tensor:
    """Rows of ids as one tensor (S, L), int64, right-padded."""
    tokens = torch.full((len(rows), max(map(len, rows))), pad_token)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def batches_of_like_length(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Numbers of the rows in batches, short rows first, so that little is spent on padding."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    return (order[begin : begin + size] for begin in range(0, len(rows), size))

"""Observations as rows of ids, refused where a policy cannot read them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def token_ids(observations: ArrayLike) -> NDArray[np.int64]:
    """Observations (num_rows, L) of any library and number type as ids.

    Libraries turn observations into floats, which hold ids exactly; they are cast back.
    """
    if isinstance(observations, Tensor):
        observations = observations.cpu().numpy()
    return np.asarray(observations).astype(np.int64, copy=False)


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

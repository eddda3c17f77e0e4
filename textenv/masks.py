"""Tables over the vocabulary: which tokens end an answer, and which may be chosen."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def token_marks(tokens: Sequence[int], vocab_size: int, name: str) -> NDArray[np.bool_]:
    """True at `tokens`, shape (V,), bool.

    Args:
        tokens: Ids.
        vocab_size: Number of tokens, V.
        name: Name of the argument, for an error.

    Raises:
        ValueError: A token is not in `range(vocab_size)`.
    """
    marks = np.zeros(vocab_size, dtype=bool)
    for token in tokens:
        if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
            raise ValueError(f"{name} holds {token!r}; tokens are 0 to {vocab_size - 1}")
        marks[token] = True
    return marks


def mask_table(
    is_stop: NDArray[np.bool_], is_forbidden: NDArray[np.bool_], min_new_tokens: int
) -> NDArray[np.bool_]:
    """Allowed tokens, shape (2, V): row 0 while the answer is too short to stop, row 1 after.

    Args:
        is_stop: Tokens that end an answer, shape (V,), bool.
        is_forbidden: Tokens that are never allowed, shape (V,), bool.
        min_new_tokens: Length from which an answer may stop.

    Raises:
        ValueError: No token is left to choose.
    """
    allowed = ~is_forbidden
    early = allowed & ~is_stop if min_new_tokens > 0 else allowed
    if not early.any():
        raise ValueError(
            f"forbidden_tokens excludes {is_forbidden.sum()} of {len(is_forbidden)} tokens and "
            f"min_new_tokens={min_new_tokens} excludes {is_stop.sum()} stop tokens: no token is "
            "left to choose"
        )
    return np.stack([early, allowed])

"""The store of a network that keeps nothing of what it has encoded."""

import numpy as np
from numpy.typing import NDArray

from policies.cache import Plan


class TokenStore:
    """The tokens of every row, from which whole rows are encoded anew.

    A step with it costs a pass over whole texts, as without a cache. A network with a store of its
    own, such as `policies.rows.RowStore`, encodes only what is new.

    Args:
        rows: Number of rows.
        longest: Tokens that a row can have.

    Attributes:
        tokens: Shape (rows, longest), int64; entries past a row's end are stale.
    """

    def __init__(self, rows: int, longest: int):
        self.tokens = np.zeros((rows, longest), dtype=np.int64)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        self.tokens[target, :length] = self.tokens[source, :length]

    def clear(self) -> None:
        """Forget all rows; nothing to do, since tokens are overwritten before they are read."""

    def take_up(self, plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keep the tokens of `plan`.

        Returns:
            The k whole rows that take part, end to end, shape (N,), and their lengths, shape (k,).
        """
        self.tokens[plan.rows, plan.positions] = plan.tokens
        last = np.cumsum(plan.counts) - 1
        rows, lengths = plan.rows[last], plan.positions[last] + 1
        inside = np.arange(lengths.max()) < lengths[:, None]
        return self.tokens[rows, : lengths.max()][inside], lengths

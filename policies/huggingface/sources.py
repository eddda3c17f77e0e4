"""Rows of a source and an answer: where one ends, and what is kept of both."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cache import Plan
from policies.rows import RowStore

_NOTHING = -1
"""Stands where nothing was read; no token equals it."""


def ends_of_sources(
    tokens: NDArray[np.int64], lengths: NDArray[np.int64], separator: int
) -> NDArray[np.int64]:
    """Place of the first separator in the first `lengths` (S,) tokens of rows (S, L); -1 if none.

    Returns:
        Shape (S,), int64.
    """
    found = (tokens == separator) & (np.arange(tokens.shape[1]) < lengths[:, None])
    return np.where(found.any(1), found.argmax(1), -1)


class SourceStore:
    """What is kept of every row: its tokens, and keys and values of source and answer.

    Encoded sources are found by their tokens alone. The encoder reads both ways, so a source of
    which only a part is known is encoded anew.

    Args:
        rows: Number of rows.
        longest: Tokens that a row can have.

    Attributes:
        tokens: Tokens of the rows, shape (rows, longest), int64; out of date behind what the cache
            knows.
        sources: Keys and values that the decoder has for each row's source.
        lengths: Tokens of these sources, shape (rows,), int64.
        answers: Keys and values of each row's answer; position 0 is the start token.
        state: Adapter, or anything besides the weights, under which this store was filled.
        encoded_sources: How many sources were encoded so far; tests read it.
    """

    def __init__(self, rows: int, longest: int):
        self.tokens = np.full((rows, longest), _NOTHING)
        self.sources, self.answers = RowStore(rows, longest), RowStore(rows, longest)
        self.lengths = np.zeros(rows, dtype=np.int64)
        self.state: object = None
        self.encoded_sources = 0
        self._known: list[bytes | None] = [None] * rows  # the source of each row in `sources`

    def clear(self) -> None:
        """Forget all rows."""
        self.sources.clear()
        self.answers.clear()
        self._known = [None] * len(self._known)

    def write(self, plan: Plan) -> None:
        """Take up the tokens of `plan`."""
        self.tokens[plan.rows, plan.positions] = plan.tokens

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        self.tokens[target, :length] = self.tokens[source, :length]
        end = int(self.lengths[source])
        if length >= end and self.tokens[source, :end].tobytes() == self._known[source]:
            self._copy([source], [target])
            # The start token stands in the separator's place.
            self.answers.copy_prefix(source, target, length - end + 1)

    def adopt(self, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> dict[bytes, list[int]]:
        """Give rows (k,) what any row has of their sources, the first `lengths` (k,) tokens.

        Returns:
            The sources that no row has, and the rows that need them.
        """
        holders = {known: row for row, known in enumerate(self._known)}
        missing: dict[bytes, list[int]] = {}
        givers, takers = [], []
        for row, length in zip(rows.tolist(), lengths.tolist(), strict=True):
            source = self.tokens[row, :length].tobytes()
            if source not in holders:
                missing.setdefault(source, []).append(row)
            elif self._known[row] != source:
                givers.append(holders[source])
                takers.append(row)
        if takers:
            self._copy(givers, takers)
        return missing

    def fill(
        self, missing: Mapping[bytes, Sequence[int]], keys: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Keep encoded sources.

        Args:
            missing: n sources, and the rows that need them; see `adopt`.
            keys: For each layer keys and values, both (n, key heads, longest source, head_dim).
        """
        places = [place for place, rows in enumerate(missing.values()) for _ in rows]
        rows = [row for some in missing.values() for row in some]
        self._forget(rows)
        width = keys[0][0].shape[2]
        self.sources.reserve(width)
        for layer, pair in enumerate(keys):
            in_order = tuple(given.transpose(1, 2) for given in pair)
            kept = self.sources.layer(layer, *(given[0] for given in in_order))
            for stored, given in zip(kept, in_order, strict=True):
                stored[rows, :width] = given[places]
        for source, some in missing.items():
            for row in some:
                self._known[row], self.lengths[row] = source, len(ids_of(source))
        self.encoded_sources += len(missing)

    def _copy(self, givers: list[int], takers: list[int]) -> None:
        """Copy sources between rows, all at once: rows may swap them."""
        known, lengths = [self._known[row] for row in givers], self.lengths[givers]
        self._forget(takers)
        width = int(lengths.max())
        for pair in self.sources.layers.values():
            for stored in pair:
                stored[takers, :width] = stored[givers, :width]
        self.lengths[takers] = lengths
        for row, source in zip(takers, known, strict=True):
            self._known[row] = source

    def _forget(self, rows: list[int]) -> None:
        """Mark rows as empty before they are written, in case writing fails half-way."""
        for row in rows:
            self._known[row] = None


def ids_of(source: bytes) -> NDArray[np.int64]:
    """The tokens of a source from the bytes by which `SourceStore` finds it."""
    return np.frombuffer(source, dtype=np.int64)


def padded(rows: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Rows of ids side by side: ids (S, W), int64, 0 behind the end, and where they are, bool."""
    lengths = np.array([len(row) for row in rows])
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(inside.shape, dtype=np.int64)
    ids[inside] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(inside)

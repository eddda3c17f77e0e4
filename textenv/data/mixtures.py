"""Mixtures: items of several sources in one endless order, in shares that are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
BLOCK = 1024
"""Items whose sources are drawn at once."""


class Read(NamedTuple):
    """What was read of a source.

    Attributes:
        items: How many items.
        epochs: How often the source was read, in parts of it.
        share: Of all that was read.
    """

    items: int
    epochs: float
    share: float


class Mixture(Generic[T]):
    """Items of several sources, each source in an order of its own that changes with every epoch.

    The item at a position depends on the sources, the weights and the seed alone, so a position is
    all that has to be saved to go on from there.

    Args:
        sources: Items by the name of their source.
        weights: Share of each source in what is read, up to a common factor. None takes sizes, so
            that all sources are read equally often; `by_epochs` gives weights for other numbers.
        seed: Of the order.

    Raises:
        ValueError: A source is empty, or the weights are not those of the sources, or not positive.

    >>> mixture = Mixture({"a": "xy", "b": "z"}, {"a": 3, "b": 1})
    >>> mixture.read(4000)["a"].share
    0.74025
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[T]],
        weights: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
    ):
        if weights is None:
            weights = {name: len(items) for name, items in sources.items()}
        empty = [name for name, items in sources.items() if not len(items)]
        if empty or not sources:
            raise ValueError(f"there is nothing in {', '.join(empty) or 'an empty mixture'}")
        if weights.keys() != sources.keys() or not all(0 < w < np.inf for w in weights.values()):
            raise ValueError(
                f"the weights {dict(weights)} are not a positive number for each of "
                f"{', '.join(sources)}"
            )
        self.sources, self.seed = dict(sources), seed
        self.names = list(sources)
        shares = np.array([weights[name] for name in self.names], dtype=np.float64)
        self.shares = shares / shares.sum()

    @classmethod
    def by_epochs(
        cls, sources: Mapping[str, Sequence[T]], epochs: Mapping[str, float], *, seed: int = 0
    ) -> "Mixture[T]":
        """A mixture in which each source is read so many times while the others are read theirs.

        Args:
            sources: Items by the name of their source.
            epochs: Passes over each source, such as {"books": 2, "web": 0.5}.
            seed: Of the order.
        """
        weights = {name: len(items) * epochs.get(name, 0) for name, items in sources.items()}
        return cls(sources, weights, seed=seed)

    def items(self, position: int = 0) -> Iterator[T]:
        """All items from a position on, without end."""
        counts = self._counts(position)
        orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        while True:
            block, begin = divmod(position, BLOCK)
            for source in self._block(block)[begin:].tolist():
                items = self.sources[self.names[source]]
                epoch, place = divmod(int(counts[source]), len(items))
                if (source, epoch) not in orders:
                    orders = {key: order for key, order in orders.items() if key[0] != source}
                    order = np.random.default_rng([self.seed, 1, source, epoch])
                    orders[source, epoch] = order.permutation(len(items))
                counts[source] += 1
                yield items[int(orders[source, epoch][place])]
            position += BLOCK - begin

    def read(self, position: int) -> dict[str, Read]:
        """What was read of each source before a position."""
        counts = self._counts(position)
        return {
            name: Read(count, count / len(self.sources[name]), count / max(position, 1))
            for name, count in zip(self.names, counts.tolist(), strict=True)
        }

    def _block(self, block: int) -> NDArray[np.int64]:
        """The source of each position of a block, shape (BLOCK,)."""
        generator = np.random.default_rng([self.seed, 0, block])
        return generator.choice(len(self.names), BLOCK, p=self.shares)

    def _counts(self, position: int) -> NDArray[np.int64]:
        """Items of each source before a position; takes a draw of each block before it."""
        if position < 0:
            raise ValueError(f"position is {position}; it is a number of items, 0 or more")
        block, begin = divmod(position, BLOCK)
        drawn = [self._block(i) for i in range(block)] + [self._block(block)[:begin]]
        counts = np.zeros(len(self.names), dtype=np.int64)
        for some in drawn:
            counts += np.bincount(some, minlength=len(self.names))
        return counts

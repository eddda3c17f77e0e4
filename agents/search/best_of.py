"""Best of n as a search, so that it can be compared with others at an equal budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agents.optimisation.bounds import Checked, bounded
from agents.search.leaves import ONE_CONTINUATION, LeafValue
from agents.search.moves import LIKELIEST, Branching
from agents.search.reading import Text
from agents.search.tree import Node, Tree
from textenv.starts import Start

NOTHING_NEW = 20
"""After this many batches without an answer that was not known, sampling ends."""


@dataclass(frozen=True)
class BestOf(Checked):
    """Whole answers are sampled until the budget is used up: best of n.

    An expansion is one sample. Beginnings that samples share are encoded once, and an answer that
    comes again is not scored again.

    Attributes:
        leaves: Answers that are sampled together.
    """

    leaves: int = bounded(64, minimum=1)
    returns: ClassVar[bool] = False

    @property
    def branching(self) -> Branching:
        """Not used: samples are no moves."""
        return LIKELIEST

    @property
    def leaf(self) -> LeafValue:
        """One sample."""
        return ONE_CONTINUATION

    def tree(self, start: Start, prompt: Text, generator: np.random.Generator) -> "Samples":
        """The samples of a prompt, none yet."""
        return Samples(start, prompt, generator)


class Samples(Tree):
    """The samples of one prompt; see `BestOf`."""

    def __init__(self, start: Start, prompt: Text, generator: np.random.Generator):
        super().__init__(start, prompt, generator)
        self._known = self._idle = 0

    def select(self, count: int) -> list[Node]:
        """See `Tree`."""
        return [] if self._idle == NOTHING_NEW else [Node(()) for _ in range(count)]

    def receive(self, leaves: Sequence[Node]) -> None:
        """See `Tree`."""
        self._idle = 0 if len(self.found) > self._known else self._idle + 1
        self._known = len(self.found)

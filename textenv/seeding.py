"""Random streams that are addressed, not advanced.

The k-th prompt of a row is a pure function of the row's key and of k. Nothing but the counter k has
to be saved to resume a stream. Each prompt is given to as many rows as a group has: whichever of
the group's rows start next, so that quick rows cannot run ahead of slow ones and leave a growing
number of groups unfinished.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from textenv.errors import PromptError
from textenv.prompts import Prompt, PromptSource

_MASK = 2**64 - 1


def stream_key(seed: int | None) -> np.uint64:
    """The key of the stream that a seed stands for; fresh entropy if None."""
    return seeding.np_random(seed)[0].integers(2**64, dtype=np.uint64)


def draw_seed(key: int, draw: int) -> int:
    """The 64-bit seed of draw number `draw` in the stream `key`.

    Output number `draw` of SplitMix64 (Steele, Lea and Flood, 2014) started from the state `key`.
    Plain integers: a step restarts one row or two, for which numpy takes ten times as long.
    """
    z = (key + (draw + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class PromptStreams:
    """Which prompt each row is given next.

    Args:
        source: Where prompts come from.
        count: Number of rows.
        group_size: So many neighbouring rows read the same stream.

    Attributes:
        keys: The stream of each group of rows, shape (count // group_size,), uint64.
        given: How many rows were given a prompt from there, shape (count // group_size,), int64.
        groups: A number that those rows share which were given the same draw, shape (count,),
            int64; -1 for a row that was started with something else.
    """

    def __init__(self, source: PromptSource, count: int, group_size: int):
        self.source, self.group_size = source, group_size
        self.keys = np.array([stream_key(None) for _ in range(count // group_size)])
        self.given = np.zeros(count // group_size, dtype=np.int64)
        self.groups = np.full(count, -1)

    def seed(self, rows: NDArray[np.intp], seeds: Sequence[int | None]) -> None:
        """Begin the streams of `rows` anew; where the seed is None the stream goes on.

        Args:
            rows: Row numbers.
            seeds: A seed for every row of the environment. The first of a group is the group's.
        """
        for group in np.unique(rows // self.group_size).tolist():
            seed = seeds[group * self.group_size]
            if seed is not None:
                self.keys[group] = stream_key(seed)
                self.given[group] = 0

    def leave(self, rows: NDArray[np.intp]) -> None:
        """Rows stop in the middle of an episode: its group will not be complete, so end it."""
        of = np.unique(rows // self.group_size)
        self.given[of] = -(-self.given[of] // self.group_size) * self.group_size

    def draw(self, rows: NDArray[np.intp]) -> Sequence[Prompt]:
        """The next prompts of `rows`.

        Raises:
            PromptError: The source did not give one prompt for each.
        """
        of, given = rows // self.group_size, self.given.copy()
        draws = np.empty(len(rows), dtype=np.int64)
        for place, group in enumerate(of.tolist()):
            draws[place] = given[group] // self.group_size
            given[group] += 1
        seeds = map(draw_seed, self.keys[of].tolist(), draws.tolist())
        prompts = self.source.draw(np.array(list(seeds), dtype=np.uint64))
        if len(prompts) != len(rows):
            raise PromptError(
                f"{type(self.source).__name__}.draw gave {len(prompts)} prompts for "
                f"{len(rows)} seeds; it must give one for each"
            )
        self.groups[rows] = draws * len(self.keys) + of
        self.given = given
        return prompts

    def state_dict(self) -> dict[str, Any]:
        """All that the next draws depend on, but for the source."""
        return {name: getattr(self, name).copy() for name in ("keys", "given", "groups")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, of the same number of rows."""
        for name in ("keys", "given", "groups"):
            getattr(self, name)[...] = state[name]

"""Random streams that are addressed, not advanced.

The k-th prompt of a row is a pure function of the row's key and of k. To resume a stream, only the
counter k must be saved. Each prompt goes to as many rows as a group has, to whichever of them start
next. Quick rows can therefore not run ahead of slow ones and leave more and more groups unfinished.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from textenv.errors import PromptError
from textenv.prompts import NoPrompts, Prompt, PromptSource
from textenv.starts import Start

_MASK = 2**64 - 1
_STATE = ("keys", "given", "groups", "placed", "draw_seeds", "episode_seeds")


def stream_key(seed: int | None) -> np.uint64:
    """The key of a seed's stream; fresh entropy if None."""
    return seeding.np_random(seed)[0].integers(2**64, dtype=np.uint64)


def draw_seed(key: int, draw: int) -> int:
    """The 64-bit seed of draw number `draw` in the stream `key`.

    Output number `draw` of SplitMix64 (Steele, Lea and Flood, 2014) started from the state `key`.
    Plain integers, because a step restarts one row or two, and numpy takes ten times as long there.
    """
    # The state after `draw + 1` steps of SplitMix64 is one multiplication: any draw can be had
    # without those before it.
    z = (key + (draw + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _episode_seed(key: int, number: int) -> int:
    # 63 bits: Gymnasium's vectors copy the integers of infos into arrays of int64.
    return draw_seed(key, number) >> 1


def keyed_generator(seed: int, number: int) -> np.random.Generator:
    """Random numbers that belong to one thing, such as an episode, and to nothing else.

    Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) is a function of a
    key and a counter. With the run's seed and the episode's own in the key, the numbers depend
    neither on other episodes nor on the row, batch or process in which the episode is played.

    Args:
        seed: Any integer, such as the seed of a run.
        number: Any integer, such as an episode's `episode_seed`.
    """
    key = np.array([seed & _MASK, number & _MASK], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


class PromptStreams:
    """Decides which prompt each row gets next.

    Args:
        source: Where prompts come from.
        count: Number of rows.
        group_size: This many neighbouring rows read the same stream.

    Attributes:
        keys: Key of each group's stream, shape (count // group_size,), uint64.
        given: How many times the stream gave a row a prompt, shape (count // group_size,), int64.
        groups: Equal for rows with the same draw, shape (count,), int64; -1 for a row that was
            started with something else.
        placed: How many times each row was started with something else, shape (count,), int64.
        draw_seeds: Equal for the episodes of one draw, shape (count,), int64.
        episode_seeds: Each episode's own seed, not negative, shape (count,), int64.
        names_groups: Whether `groups` are worth telling.
    """

    def __init__(self, source: PromptSource, count: int, group_size: int):
        self.source, self.group_size = source, group_size
        self.names_groups = group_size > 1
        self.keys = np.array([stream_key(None) for _ in range(count // group_size)])
        self.given = np.zeros(count // group_size, dtype=np.int64)
        self.groups = np.full(count, -1)
        self.placed = np.zeros(count, dtype=np.int64)
        self.draw_seeds, self.episode_seeds = np.zeros((2, count), dtype=np.int64)

    dealt = False
    """Whether nothing is left to draw."""

    def seed(self, rows: NDArray[np.intp], seeds: Sequence[int | None]) -> None:
        """Restart the streams of `rows`; where the seed is None the stream continues.

        Args:
            rows: Row numbers.
            seeds: A seed for every row of the environment. A group takes that of its first row.
        """
        for group in np.unique(rows // self.group_size).tolist():
            seed = seeds[group * self.group_size]
            if seed is not None:
                self.keys[group] = stream_key(seed)
                self.given[group] = 0
                self.placed[group * self.group_size : (group + 1) * self.group_size] = 0

    def leave(self, rows: NDArray[np.intp]) -> None:
        """Rows stop in the middle of an episode: their group stays incomplete, so end it."""
        of = np.unique(rows // self.group_size)
        # Rounded up to the next whole group: the rows that come next get a new prompt.
        self.given[of] = -(-self.given[of] // self.group_size) * self.group_size

    def draw(self, rows: NDArray[np.intp]) -> Sequence[Prompt | Start]:
        """The next prompts of `rows`.

        Raises:
            PromptError: The source did not give one prompt for each.
        """
        # The counters are copied, and kept only after the source has given its prompts: if it
        # raises, the next try draws the same ones.
        of, given = rows // self.group_size, self.given.copy()
        draws, members = np.empty((2, len(rows)), dtype=np.int64)
        for place, group in enumerate(of.tolist()):
            draws[place], members[place] = divmod(given[group], self.group_size)
            given[group] += 1
        seeds = list(map(draw_seed, self.keys[of].tolist(), draws.tolist()))
        prompts = self.source.draw(np.array(seeds, dtype=np.uint64))
        if len(prompts) != len(rows):
            raise PromptError(
                f"{type(self.source).__name__}.draw gave {len(prompts)} prompts for "
                f"{len(rows)} seeds; it must give one for each"
            )
        # Unique over all groups and draws: the draw and the group's number in one integer.
        self.groups[rows] = draws * len(self.keys) + of
        # A seed of a seed: of the answers to one draw, each has its own.
        self.draw_seeds[rows] = [seed >> 1 for seed in seeds]
        self.episode_seeds[rows] = list(map(_episode_seed, seeds, members.tolist()))
        self.given = given
        return prompts

    def place(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> None:
        """Note that `rows` start with something else than a draw; a start may name its seeds."""
        for row in rows.tolist():
            group, member = divmod(row, self.group_size)
            # Draws are numbered from 0 up; these streams of single rows are numbered below.
            stream = draw_seed(int(self.keys[group]), -2 - member)
            self.episode_seeds[row] = _episode_seed(stream, int(self.placed[row]))
            self.draw_seeds[row] = self.episode_seeds[row]  # nobody shares such a start
        self.placed[rows] += 1
        self.groups[rows] = -1
        self._adopt(rows, starts)

    def _adopt(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> None:
        for row, start in zip(rows.tolist(), starts, strict=True):
            if start.draw_seed is not None:
                self.draw_seeds[row] = start.draw_seed
            if start.episode_seed is not None:
                self.episode_seeds[row] = start.episode_seed

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next draws depend on, except the source."""
        return {name: getattr(self, name).copy() for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` gave; the number of rows must be the same."""
        for name in _STATE:
            getattr(self, name)[...] = state[name]


class GivenStarts(PromptStreams):
    """Deals out a list of starts, each once, to whichever rows start next.

    The group of an episode is the number of its start in the list.

    Args:
        starts: The starts, each with its `episode_seed`.
        count: Number of rows.
    """

    def __init__(self, starts: Sequence[Start], count: int):
        super().__init__(NoPrompts(), count, 1)
        self.starts, self.names_groups = starts, True

    @property
    def dealt(self) -> bool:
        """Whether nothing is left to deal out."""
        return int(self.given.sum()) >= len(self.starts)

    def draw(self, rows: NDArray[np.intp]) -> Sequence[Start]:
        """The next starts, for the first of `rows`; fewer than `rows` if no more are left."""
        first = int(self.given.sum())
        starts = self.starts[first : first + len(rows)]
        rows = rows[: len(starts)]
        self.given[rows] += 1
        self.groups[rows] = first + np.arange(len(rows))
        self._adopt(rows, starts)
        return starts

"""Random streams that are addressed, not advanced.

The k-th prompt of a row is a pure function of the row's key and of k. To resume a stream, only the
counter k must be saved. Each prompt goes to as many rows as a group has, to whichever of them start
next. Quick rows can therefore not run ahead of slow ones and leave more and more groups unfinished.

A source that is told what was scored is a function of its state too. It is asked once for each
draw, and its state is saved with the counters.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from textenv.curriculum import AdaptivePrompts
from textenv.errors import CheckpointError, PromptError
from textenv.places import place_of
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


def name_of_key(generator: np.random.Generator) -> str:
    """Names what a generator of `keyed_generator` belongs to, however much it has drawn."""
    key: list[int] = generator.bit_generator.state["state"]["key"].tolist()
    return "-".join(map(str, key))


class PromptStreams:
    """Decides which prompt each row gets next.

    Args:
        source: Where prompts come from.
        count: Number of rows.
        group_size: This many neighbouring rows read the same stream.
        before: Of a share of more rows, the groups before its own.
        of: Groups of all rows together; `count // group_size` if None.

    Attributes:
        keys: Key of each group's stream, shape (count // group_size,), uint64.
        given: How many times the stream gave a row a prompt, shape (count // group_size,), int64.
        groups: Equal for rows with the same draw, shape (count,), int64; -1 for a row that was
            started with something else.
        placed: How many times each row was started with something else, shape (count,), int64.
        draw_seeds: Equal for the episodes of one draw, shape (count,), int64.
        episode_seeds: Each episode's own seed, not negative, shape (count,), int64.
        names_groups: Whether `groups` are worth telling.
        adaptive: Whether the source is told what was scored.

    Raises:
        PromptError: The source is told what was scored, and its state cannot be saved.
    """

    def __init__(
        self,
        source: PromptSource,
        count: int,
        group_size: int,
        before: int = 0,
        of: int | None = None,
    ):
        self.source, self.group_size = source, group_size
        self.before, self.of = before, of or count // group_size
        self.names_groups = group_size > 1
        self.keys = np.array([stream_key(None) for _ in range(count // group_size)])
        self.given = np.zeros(count // group_size, dtype=np.int64)
        self.groups = np.full(count, -1)
        self.placed = np.zeros(count, dtype=np.int64)
        self.draw_seeds, self.episode_seeds = np.zeros((2, count), dtype=np.int64)
        self.adaptive = hasattr(source, "scored")
        # The prompt of each group's latest draw: what an adaptive source is told between the starts
        # of two answers to it must not change it.
        self._latest: list[Prompt | None] = [None] * len(self.keys)
        self._source_begin: dict[str, Any] | None = None
        if self.adaptive:
            if not isinstance(source, AdaptivePrompts):
                raise PromptError(
                    f"{type(source).__name__} is told what was scored, and its state cannot be "
                    "saved: give it state_dict() and load_state_dict(state)"
                )
            self._source_begin = copy.deepcopy(source.state_dict())

    @property
    def dealt(self) -> bool:
        """Whether nothing is left to draw."""
        return False

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
        # With a seed for every row all begins anew, as Gymnasium asks: the source too.
        everywhere = len(rows) == len(self.groups) and all(seed is not None for seed in seeds)
        if self.adaptive and everywhere:
            self._adaptive.load_state_dict(copy.deepcopy(self._source_begin or {}))

    def scored(
        self, rows: NDArray[np.intp], prompts: Sequence[Prompt], scores: NDArray[np.float64]
    ) -> None:
        """Tell the source what the episodes of `rows` were paid, if it began them.

        Raises:
            PromptError: The source raised; its exception is the cause.
        """
        groups = self.groups[rows]
        drawn = (groups >= 0).nonzero()[0]
        if not len(drawn):
            return
        told = [prompts[place] for place in drawn.tolist()]
        try:
            self._adaptive.scored(told, scores[drawn], groups[drawn])
        except Exception as error:
            place = place_of(error, self._adaptive.scored)
            raise PromptError(
                f"{type(self.source).__name__}.scored raised {type(error).__name__}: {error}"
                + (f"; in {place}" if place else "")
            ) from error

    @property
    def _adaptive(self) -> AdaptivePrompts:
        assert isinstance(self.source, AdaptivePrompts)
        return self.source

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
        if self.adaptive:
            prompts = self._drawn_or_kept(seeds, of.tolist(), members.tolist())
        else:
            prompts = self._from_source(seeds)
        # Unique over all groups and draws: the draw and the group's number in one integer.
        self.groups[rows] = draws * self.of + self.before + of
        # A seed of a seed: of the answers to one draw, each has its own.
        self.draw_seeds[rows] = [seed >> 1 for seed in seeds]
        self.episode_seeds[rows] = list(map(_episode_seed, seeds, members.tolist()))
        self.given = given
        return prompts

    def _drawn_or_kept(
        self, seeds: Sequence[int], of: Sequence[int], members: Sequence[int]
    ) -> Sequence[Prompt]:
        """The prompts of draws: new ones for the first members of groups, kept ones for others."""
        firsts = [seed for seed, member in zip(seeds, members, strict=True) if member == 0]
        new, latest = iter(self._from_source(firsts) if firsts else ()), self._latest[:]
        prompts: list[Prompt] = []
        for group, member in zip(of, members, strict=True):
            kept = next(new) if member == 0 else latest[group]
            assert kept is not None  # the first member of a draw comes before the others
            latest[group] = kept
            prompts.append(kept)
        self._latest = latest
        return prompts

    def _from_source(self, seeds: Sequence[int]) -> Sequence[Prompt]:
        prompts = self.source.draw(np.array(seeds, dtype=np.uint64))
        if len(prompts) != len(seeds):
            raise PromptError(
                f"{type(self.source).__name__}.draw gave {len(prompts)} prompts for "
                f"{len(seeds)} seeds; it must give one for each"
            )
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
        """Everything that the next draws depend on; of the source, if it is told what was scored.

        Raises:
            PromptError: The columns of a prompt hold something that JSON cannot.
        """
        state: dict[str, Any] = {name: getattr(self, name).copy() for name in _STATE}
        if self.adaptive:
            state["latest"] = [prompt and prompt.to_json() for prompt in self._latest]
            state["source"] = self._adaptive.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` gave; the number of rows must be the same.

        Raises:
            CheckpointError: It was saved with a source that is told what was scored and this one is
                not, or the other way round.
        """
        if self.adaptive != ("source" in state):
            have, lack = ("this", "saved") if self.adaptive else ("saved", "this")
            raise CheckpointError(
                f"the {have} environment tells its prompts what was scored and the {lack} one does "
                "not: make it with the same prompts="
            )
        for name in _STATE:
            getattr(self, name)[...] = state[name]
        if self.adaptive:
            self._latest = [prompt and Prompt.from_json(prompt) for prompt in state["latest"]]
            self._adaptive.load_state_dict(state["source"])


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

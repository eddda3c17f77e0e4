"""What the adapters share: an environment for each row, one step a turn, and how both are saved."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from textenv.errors import WORLD_FAILURES, WorldError
from textenv.records import short
from textenv.worlds.base import BatchedWorld, Reply, Turn

Rows: TypeAlias = Sequence[int]
Records: TypeAlias = Sequence[Mapping[str, Any]]
Generators: TypeAlias = Sequence[np.random.Generator]


@dataclass
class Played:
    """An environment in the middle of an episode, and how it came there.

    Attributes:
        env: The environment.
        seed: Its reset's seed.
        options: More of its reset: the record's column `reset_options`.
        moves: Each step since: what was said, and the seed of the step's random numbers.
        said: What it answered last: a text, or an opening of several messages.
    """

    env: Any
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    moves: list[tuple[str, int]] = field(default_factory=list)
    said: Any = ""

    def note(self, text: str, seed: int, reply: Reply) -> None:
        """Write a step down."""
        self.moves.append((text, seed))
        self.said = reply.text


class SteppedWorld(BatchedWorld):
    """Keeps one environment for each row and steps it once a turn.

    An environment is made when its row first begins, and reset for each later episode. The seed of
    the reset is drawn from the generator of the draw, so a group shares its start; a record with a
    column `seed` names the start itself. Each step has random numbers of its own.

    The state of foreign environments cannot be read, but it follows from the seeds and from what
    was said. So these are saved, and loading plays the episode again. An environment that answers
    differently then is refused by name.

    Args:
        make: Makes an environment.
    """

    def __init__(self, make: Callable[[], Any]):
        self._make = make
        self._played: dict[int, Played] = {}

    @abstractmethod
    def _reset(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        """Begin an episode; returns its opening."""

    @abstractmethod
    def _step(self, env: Any, text: str, seed: int) -> Reply:
        """Do what was said, with the random numbers of `seed`."""

    def begin(
        self, rows: Rows, records: Records, rngs: Generators
    ) -> Sequence[str | BaseException]:
        """Reset each row's environment; see `BatchedWorld.begin`."""
        openings: list[str | BaseException] = []
        with self._numbers_kept():
            for row, record, rng in zip(rows, records, rngs, strict=True):
                before = self._played.pop(row, None)  # if the reset fails, nobody steps it
                try:
                    env = self._make() if before is None else before.env
                    self._begin(row, Played(env, seed_of(record, rng), self._reset_columns(record)))
                except WORLD_FAILURES as error:
                    openings.append(error)
                else:
                    openings.append(self._played[row].said)
        return openings

    def _numbers_kept(self) -> AbstractContextManager[None]:
        """Put around resets and steps, for environments that draw from the process's generators."""
        return nullcontext()

    def _reset_columns(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the reset gets beside its seed."""
        return record.get("reset_options") or {}

    def _begin(self, row: int, played: Played) -> None:
        played.said = self._reset(played.env, played.seed, played.options)
        self._played[row] = played

    def reply(self, rows: Rows, turns: Sequence[Turn], rngs: Generators) -> Any:
        """Step each row's environment; a row whose environment raised gets the exception."""
        with self._numbers_kept():
            return [
                self._moved(row, turn.text, step_seed(rng))
                for row, turn, rng in zip(rows, turns, rngs, strict=True)
            ]

    def _moved(self, row: int, text: str, seed: int) -> Reply | BaseException:
        """One step of one row, written down."""
        try:
            played = self._played[row]
            reply = self._step(played.env, text, seed)
        except WORLD_FAILURES as error:
            self._played.pop(row, None)  # it may be broken: the next episode gets a new one
            return error
        played.note(text, seed, reply)
        return reply

    def state_dict(self) -> dict[str, Any]:
        """Each row's seeds and what was said."""
        return {
            str(row): {
                "seed": played.seed,
                "options": dict(played.options),
                "moves": [list(move) for move in played.moves],
                "said": played.said,
            }
            for row, played in self._played.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the saved episodes again.

        Raises:
            WorldError: An environment answered differently.
        """
        before = dict(self._played)
        self._played.clear()
        with self._numbers_kept():
            for row, saved in state.items():
                env = before[int(row)].env if int(row) in before else self._make()
                self._play_again(int(row), env, saved)

    def _play_again(self, row: int, env: Any, saved: Mapping[str, Any]) -> None:
        self._begin(row, Played(env, saved["seed"], saved["options"]))
        for text, seed in saved["moves"]:
            failed = self._moved(row, text, seed)
            if isinstance(failed, BaseException):
                raise WorldError(
                    f"row {row}: playing a saved episode again raised {failed}"
                ) from failed
        check_repeated(row, saved["said"], self._played[row].said)


def step_seed(rng: np.random.Generator) -> int:
    """A seed for one step, 0 to 2**31 - 1; the quickest way to draw one."""
    return int(rng.bit_generator.random_raw()) >> 33


def seed_of(record: Mapping[str, Any], rng: np.random.Generator) -> int:
    """The record's own seed if it has one, else one that is drawn, 0 to 2**31 - 1."""
    named = record.get("seed")
    return int(rng.integers(2**31)) if named is None else int(named)


def check_repeated(row: int, saved: str, said: str) -> None:
    """Refuse an episode that went differently when it was played again.

    Raises:
        WorldError: It did.
    """
    if said != saved:
        raise WorldError(
            f"row {row}: played again with the same seed and turns, the environment said "
            f"{short(said)} where it had said {short(saved)}. Something in it depends on more than "
            "its seed, so its episodes cannot be saved: draw all its random numbers from there"
        )


def plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that can be saved: texts, numbers and flags."""
    scalars = {k: v.item() if isinstance(v, np.generic) else v for k, v in info.items()}
    return {k: v for k, v in scalars.items() if isinstance(v, str | int | float | bool)}

"""Games of TextArena as worlds: against a partner, or against itself."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np

from textenv.errors import WORLD_FAILURES, WorldError
from textenv.imports import optional
from textenv.records import short
from textenv.seeding import keyed_generator
from textenv.worlds.adapters.step_numbers import global_numbers_kept, seed_global_numbers
from textenv.worlds.adapters.stepped import Generators, Records, Rows, SteppedWorld, step_seed
from textenv.worlds.base import Reply, Turn

Talk: TypeAlias = list[dict[str, str]]
"""What a seat has been told (role user) and has said (role assistant), oldest first."""

Partner: TypeAlias = Callable[[Sequence[Talk], Sequence[np.random.Generator]], Sequence[str]]
"""Says the moves of seats that wait: one for each conversation, with random numbers for each."""


def all_messages(messages: Any, seat: int) -> str:
    """What a seat is told, without the echo of its own moves; a line for each message."""
    if isinstance(messages, str):  # the game is wrapped by something that makes texts
        return messages
    own = [kind.name == "PLAYER_ACTION" and speaker == seat for speaker, _, kind in messages]
    return "".join(
        f"{text}\n" for (_, text, _), mine in zip(messages, own, strict=True) if not mine
    )


def bracketed(text: str) -> str:
    """The text in square brackets, unless it has some.

    >>> bracketed(" 4"), bracketed("I take [4]")
    ('[4]', 'I take [4]')
    """
    return text if "[" in text or "]" in text else f"[{text.strip()}]"


def one_by_one(move: Callable[[str, np.random.Generator], str]) -> Partner:
    """A partner from a function of the text that it was told last and random numbers."""

    def partner(talks: Sequence[Talk], rngs: Sequence[np.random.Generator]) -> Sequence[str]:
        return [move(talk[-1]["content"], rng) for talk, rng in zip(talks, rngs, strict=True)]

    return partner


class TextArenaWorld(SteppedWorld):
    """Plays a game of TextArena, one move a turn.

        world = TextArenaWorld("Nim-v0", partner=one_by_one(takes_one), seat=None)

    **Against a partner** the agent has one seat, and the partner says the moves of all others. The
    reply to a move is what the agent's seat is told until it is to move again. The game's reward of
    that seat is paid when the game ends.

    **Against itself** (`partner=None`) the agent says the moves of all seats in turn, in one text.
    The reply to a move is what the next seat is told, so a seat can read what others were told:
    this is for games without secrets. When the game ends, the reward of the seat that moved last is
    paid; in a game of two where one wins what the other loses, the rest of the moves are worth its
    negative. `reply_info` says whose turn is next (`seat`), and `world_info` at the end has all
    `rewards`.

    A move that breaks the rules is the game's matter: most tell the player once and then let it
    lose.

    Args:
        game: The id of a game, or a function that makes one. Games made by their id are not wrapped
            (`-raw`), since the library's wrappers repeat all that was said at every turn.
        partner: Says the others' moves; None plays against itself.
        seat: The agent's; None draws one for each episode, the same for a group.
        num_players: Number of seats.
        describe: Makes the text of what a seat is told: of the game's list of (speaker, text, kind)
            since its last move, and of the seat.
        read: Makes the move of what was said.

    Raises:
        MissingExtraError: TextArena is not installed.
        ValueError: There is no game of this id.
        WorldError: There is no such seat.
    """

    def __init__(
        self,
        game: str | Callable[[], Any],
        *,
        partner: Partner | None = None,
        seat: int | None = 0,
        num_players: int = 2,
        describe: Callable[[Any, int], str] = all_messages,
        read: Callable[[str], str] = bracketed,
    ):
        if seat is not None and not 0 <= seat < num_players:
            raise WorldError(f"seat is {seat}; the game has the seats 0 to {num_players - 1}")
        make = _maker(game) if isinstance(game, str) else game
        super().__init__(lambda: _Game(make(), num_players, describe, read))
        with self._numbers_kept():
            self._make()  # says now if there is no such game
        self._partner, self._seat, self._num_players = partner, seat, num_players

    def _numbers_kept(self) -> AbstractContextManager[None]:
        return global_numbers_kept()

    def _seat_of(self, seed: int) -> int:
        if self._seat is not None:
            return self._seat
        return int(keyed_generator(seed, 1).integers(self._num_players))

    def _reset(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        env.reset(seed)
        env.agent = None if self._partner is None else self._seat_of(seed)
        return env.told

    def _step(self, env: Any, text: str, seed: int) -> Reply:
        return env.step(text, seed)

    def begin(
        self, rows: Rows, records: Records, rngs: Generators
    ) -> Sequence[str | BaseException]:
        """Reset each row's game, and let the partner move until it is the agent's turn."""
        openings: list[Any] = list(super().begin(rows, records, rngs))
        seeds = [self._played[row].seed if row in self._played else 0 for row in rows]
        drawn = [keyed_generator(seed, 2) for seed in seeds]
        for place, reply in enumerate(self._partner_moves(rows, [None] * len(rows), drawn)):
            if isinstance(reply, Reply) and reply.terminated:
                reply = WorldError("the game was over before the agent's first move")
            if isinstance(reply, Reply):
                openings[place] = "".join(reply.texts)
            elif reply is not None:
                openings[place] = reply
        return openings

    def reply(self, rows: Rows, turns: Sequence[Turn], rngs: Generators) -> Any:
        """Make each row's move, and the partner's until it is the agent's turn again."""
        return self._partner_moves(rows, super().reply(rows, turns, rngs), rngs)

    def _partner_moves(self, rows: Rows, replies: Sequence[Any], rngs: Generators) -> list[Any]:
        replies = list(replies)
        while waiting := [
            place
            for place, row in enumerate(rows)
            if row in self._played and self._played[row].env.waits_for_partner
        ]:
            talks = [self._played[rows[place]].env.talk for place in waiting]
            try:
                moves = self._moves(talks, [rngs[place] for place in waiting])
            except WORLD_FAILURES as error:
                for place in waiting:
                    del self._played[rows[place]]
                    replies[place] = error
                break
            with self._numbers_kept():
                for place, move in zip(waiting, moves, strict=True):
                    replies[place] = self._moved(rows[place], move, step_seed(rngs[place]))
        return replies

    def _moves(self, talks: Sequence[Talk], rngs: Generators) -> Sequence[str]:
        assert self._partner is not None
        moves = list(self._partner(talks, rngs))
        if len(moves) != len(talks) or not all(isinstance(move, str) for move in moves):
            raise WorldError(
                f"the partner returned {short(moves)}; it must return a text for each of "
                f"{len(talks)} conversations"
            )
        return moves


class _Game:
    """One game: whose turn it is, and what each seat has been told and has said."""

    def __init__(
        self, env: Any, players: int, describe: Callable[..., str], read: Callable[..., str]
    ):
        self._env, self._players, self._describe, self._read = env, players, describe, read
        self.agent: int | None = None  # None: the agent has all seats
        self.seat, self.over = 0, True
        self.talks: list[Talk] = []

    @property
    def talk(self) -> Talk:
        """The conversation of the seat that is to move."""
        return self.talks[self.seat]

    @property
    def told(self) -> str:
        """What the seat that is to move was told last."""
        return self.talk[-1]["content"]

    @property
    def waits_for_partner(self) -> bool:
        return not self.over and self.agent is not None and self.seat != self.agent

    def reset(self, seed: int) -> None:
        seed_global_numbers(seed)
        self._env.reset(num_players=self._players, seed=seed)
        self.talks, self.over = [[] for _ in range(self._players)], False
        self._listen()

    def _listen(self) -> None:
        self.seat, messages = self._env.get_observation()
        self.talk.append({"role": "user", "content": self._describe(messages, self.seat)})

    def step(self, text: str, seed: int) -> Reply:
        self.talk.append({"role": "assistant", "content": text})
        seed_global_numbers(seed)
        self.over, _ = self._env.step(self._read(text))
        if not self.over:
            self._listen()
            return Reply(self.told, info={"seat": self.seat})
        rewards, info = self._env.close()
        paid = self.seat if self.agent is None else self.agent
        return Reply(
            reward=float(rewards[paid]),
            terminated=True,
            info={
                "seat": paid,
                "rewards": {str(seat): float(reward) for seat, reward in rewards.items()},
                "reason": str(info[paid].get("reason", "")),
                "invalid_move": any(one.get("invalid_move", False) for one in info.values()),
            },
        )


def _maker(game: str) -> Callable[[], Any]:
    with optional("textarena", extra="textarena", purpose="a game of TextArena"):
        import textarena
        from textarena.envs.registration import ENV_REGISTRY

    bare = f"{game}-raw"
    return lambda: textarena.make(bare if bare in ENV_REGISTRY else game)

"""The world of a game for two, in which a policy has the seat that the agent has not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from agents.partners.pool import Pool
from agents.partners.table import PartnerTurn, Table
from policies import Policy
from policies.cache import PrefixCache
from textenv import BatchedWorld, Prompt, Reply, Turn
from textenv.errors import (
    WORLD_FAILURES,
    PromptTooLongError,
    VocabularyMismatchError,
    WorldError,
)
from textenv.seeding import name_of_key
from textenv.tokenizers import decode_answer, decode_prompt
from textenv.worlds import Play, TurnRules, TwoPlayerGame
from textenv.worlds.states import restored


class TwoPlayers(BatchedWorld):
    """Plays the other seat of a game with a policy, all rows that wait together.

    What the partner says is appended to the agent's text by its ids, exactly as they were chosen,
    stop token included; it is the world's, in no mask and no loss. What the agent says reaches the
    partner by its ids too. Both seats keep to the same rules: stop tokens and strings,
    `max_turn_tokens`, `min_new_tokens`, forbidden and allowed tokens of the environment.

    The random numbers of the partner belong to the episode, so what it says depends neither on
    other rows nor on the batch. If it moves first, its first move belongs to the draw, and all
    episodes of a group begin with the same one, also those that begin when its weights have
    changed. A partner that ends the game with the very first
    move leaves the agent one turn, which changes nothing, to be paid for it.

    `seat` is a column of the episode's record: rewards find it as `episode.columns["seat"]`. It is
    also in the replies' info.

    The text that an episode begins with holds the opening and, where the partner moves first, its
    whole first turn: `max_prompt_tokens` needs room for both.

    Args:
        game: Makes the rules for each episode: a class derived from `TwoPlayerGame`.
        partner: Who plays the other seat: the learner's own policy, whose present weights then play
            both seats; a frozen copy or any other policy; or a `Pool`. It can be set later, since a
            policy is often made for its environment. Running episodes keep theirs.
        seat: Where the agent sits; drawn for each draw if None.
        temperature: Logits of the partner are divided by it.

    Raises:
        WorldError: Nobody plays the other seat, the game returned something that cannot be, the
            world is used in two environments, or the environment has a frame.
        VocabularyMismatchError: The partner has other tokens than the environment.
        PromptTooLongError: The opening and the partner's first turn do not fit.
    """

    def __init__(
        self,
        game: Callable[[], TwoPlayerGame],
        partner: Policy | Pool | None = None,
        *,
        seat: Literal[0, 1] | None = None,
        temperature: float = 1.0,
    ):
        if seat not in (None, 0, 1):
            raise ValueError(f"seat is {seat!r}; it must be 0, 1, or None, which draws it")
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be positive")
        self.game, self.partner, self.seat, self.temperature = game, partner, seat, temperature
        self._rules: TurnRules | None = None
        self._tables: dict[int, Table] = {}
        self._caches: dict[Policy, PrefixCache] = {}

    def __deepcopy__(self, memo: Any) -> "TwoPlayers":
        """Itself: the spec of an environment is copied, and its partner is not to be copied."""
        return self

    @property
    def rules(self) -> TurnRules:
        """What holds for a turn of either seat.

        Raises:
            WorldError: No environment has taken this world.
        """
        if self._rules is None:
            raise WorldError("no environment plays this game: pass it as world= first")
        return self._rules

    def join(self, rules: TurnRules) -> None:
        """See `BatchedWorld.join`."""
        if rules.frame is not None:
            raise WorldError(
                "both seats read one text, in which nobody is the assistant: make an environment "
                "of TwoPlayers without frame=, or let the game's words say who speaks"
            )
        if self._rules is not None:
            raise WorldError(
                "this world is another environment's already, and its rows would be mixed up: make "
                "a TwoPlayers for each environment; they can share a partner"
            )
        self._rules = rules

    def another(self) -> "TwoPlayers":
        """See `BatchedWorld.another`; both share the partner."""
        return TwoPlayers(self.game, self.partner, seat=self.seat, temperature=self.temperature)

    def begin(
        self,
        rows: Sequence[int],
        records: Sequence[Mapping[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Prompt]:
        """See `BatchedWorld.begin`."""
        tables = {}
        # Whatever the weights are now: the latest of a group's episodes to begin still has its
        # table when the next one begins.
        first_moves = {t.draw: t.moves[: t.opens] for t in self._tables.values()}
        for row, record, rng in zip(rows, records, rngs, strict=True):
            draw = name_of_key(rng)
            # The game draws first: its secrets do not depend on who plays.
            play = Play.opened(self.game, self.rules, record, rng)
            seat = int(rng.integers(2)) if self.seat is None else self.seat
            number = self.partner.choose(rng) if isinstance(self.partner, Pool) else None
            tables[row] = Table(play, seat, number, self._policy(number), draw=draw)
            for tokens in first_moves.get(draw, ()):
                rng.random(len(tokens))  # as many as were drawn to choose them
                tables[row].said(tokens, rng)
        failed = self._play_on(tables, dict(zip(rows, rngs, strict=True)))
        for error in failed.values():
            raise error
        room = self.rules.length - self.rules.budget
        for row, table in tables.items():
            if len(table.view) > room:
                raise PromptTooLongError(
                    f"row {row}: the opening and the partner's first turn have {len(table.view)} "
                    f"tokens together, max_prompt_tokens is {room}",
                    "make the environment with more room",
                )
            table.play.count_from_here()
            table.opens = len(table.moves)
        self._tables |= tables  # only now: one that cannot begin leaves the old ones
        return [self._opening(table) for table in tables.values()]

    def _opening(self, table: Table) -> Prompt:
        ids = table.news()
        text = decode_prompt(self.rules.tokenizer, ids)
        return Prompt(text, {"seat": table.seat}, np.array(ids, dtype=np.int64))

    def reply(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reply | BaseException]:
        """See `BatchedWorld.reply`; a row whose game raises gets the exception."""
        tables = {row: self._tables[row] for row in rows}
        numbers = dict(zip(rows, rngs, strict=True))
        failed: dict[int, BaseException] = {}
        for row, turn in zip(rows, turns, strict=True):
            table = tables[row]
            if table.play.over:  # by the partner's very first move
                continue
            table.read += len(turn.tokens)
            try:
                table.play.said(turn.tokens.tolist(), numbers[row])
            except WORLD_FAILURES as error:
                failed[row] = error
        failed |= self._play_on({r: t for r, t in tables.items() if r not in failed}, numbers)
        return [failed.get(row) or self._told(tables[row]) for row in rows]

    def _told(self, table: Table) -> Reply:
        before, play = table.view[: table.read], table.play
        ids = table.news()
        words = [i for i in ids if not self.rules.is_stop[i]]
        return Reply(
            decode_answer(self.rules.tokenizer, before, words) if words else "",
            table.pay(),
            terminated=play.over,
            # The agent has room and the partner has none: the environment cannot know.
            truncated=table.partner_moves and play.room(table.seat) > 0,
            info={"seat": table.seat},
            tokens=np.array(ids, dtype=np.int64),
        )

    # ---------------------------------------------------------------- the partner

    def _play_on(
        self, tables: Mapping[int, Table], rngs: Mapping[int, np.random.Generator]
    ) -> dict[int, BaseException]:
        """Let the partner speak until the agent's turn; returns what failed, by row."""
        failed: dict[int, BaseException] = {}

        def turns_of(rows: Sequence[int]) -> list[PartnerTurn]:
            able = [row for row in rows if tables[row].partner_moves and tables[row].room > 0]
            return [self._turn(row, tables[row], rngs[row]) for row in able]

        speaking = turns_of(list(tables))
        while speaking:
            going_on, moved = [], []
            self._choose(speaking)
            for turn in speaking:
                if not self._is_over(turn):
                    going_on.append(turn)
                    continue
                try:
                    turn.table.said(turn.tokens, turn.rng)
                    moved.append(turn.row)
                except WORLD_FAILURES as error:
                    failed[turn.row] = error
            speaking = going_on + turns_of(moved)
        return failed

    def _turn(self, row: int, table: Table, rng: np.random.Generator) -> PartnerTurn:
        view = table.play.views[1 - table.seat]
        text = np.full(self.rules.length, table.policy.pad_token, dtype=np.int64)
        text[: len(view)] = view
        return PartnerTurn(row, table, rng, text, view, table.room)

    def _is_over(self, turn: PartnerTurn) -> bool:
        return len(turn.tokens) >= turn.room or self.rules.ends(turn.view, turn.tokens)

    def _choose(self, speaking: Sequence[PartnerTurn]) -> None:
        """One more token for each turn, by each policy for all of its rows together."""
        by_policy: dict[Policy, list[PartnerTurn]] = {}
        for turn in speaking:
            by_policy.setdefault(turn.table.policy, []).append(turn)
        for policy, turns in by_policy.items():
            turns.sort(key=lambda turn: turn.row)
            lengths = np.array([len(turn.tokens) for turn in turns])
            masks = self.rules.allowed[(lengths >= self.rules.min_tokens).astype(np.intp)]
            chosen = policy.act(
                np.stack([turn.text for turn in turns]),
                self._cache(policy).some(np.array([turn.row for turn in turns])),
                temperature=self.temperature,
                action_masks=None if masks.all() else masks,
                uniforms=np.array([turn.rng.random() for turn in turns]),
            ).actions
            for turn, token in zip(turns, chosen.tolist(), strict=True):
                turn.text[len(turn.view) + len(turn.tokens)] = token
                turn.tokens.append(token)

    def _policy(self, number: int | None) -> Policy:
        """Who plays an episode; see `Pool.choose`.

        Raises:
            WorldError: There is none, or its context is too short.
            VocabularyMismatchError: It has other tokens than the environment.
        """
        partner, rules = self.partner, self.rules
        if partner is None:
            raise WorldError(
                "nobody plays the other seat: set partner = policy (its present weights), "
                "policy.frozen_copy() or Pool(policy) of this TwoPlayers before the first reset"
            )
        policy = partner.player(number) if isinstance(partner, Pool) else partner
        own = policy.tokenizer
        if policy.vocab_size != len(rules.is_stop) or (
            own is not None and own.fingerprint != rules.tokenizer.fingerprint
        ):
            raise VocabularyMismatchError(
                f"the partner has {policy.vocab_size} tokens of {own!r}, the environment has "
                f"{len(rules.is_stop)} of {rules.tokenizer!r}: they talk by ids, so make both with "
                "one tokenizer"
            )
        if policy.context < rules.length:
            raise WorldError(
                f"the partner's context is {policy.context}, and its text may have "
                f"{rules.length} tokens, as many as an observation: make it with a longer context, "
                "or the environment with smaller budgets"
            )
        return policy

    def _cache(self, policy: Policy) -> PrefixCache:
        if policy not in self._caches:
            playing = {table.policy for table in self._tables.values()}
            self._caches = {p: c for p, c in self._caches.items() if p in playing}
            self._caches[policy] = policy.new_cache(self.rules.rows, self.rules.length)
        return self._caches[policy]

    # ---------------------------------------------------------------- saving

    def state_dict(self) -> dict[str, Any]:
        """Every row's play, and the snapshots of a pool. Other partners save themselves.

        The present weights are the learner's; a frozen partner is made again like the reward.
        """
        tables = {str(row): self.save(row) for row in self._tables}
        pool = self.partner.state_dict() if isinstance(self.partner, Pool) else None
        return {"tables": tables, "pool": pool}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` gave; the partner is of the same kind."""
        if isinstance(self.partner, Pool) != (state["pool"] is not None):
            has = "has no pool" if state["pool"] is None else "has a pool"
            raise WorldError(f"the state {has}: set the partner that was saved before loading it")
        if isinstance(self.partner, Pool):
            self.partner.load_state_dict(state["pool"])
        self._caches.clear()
        self._tables = {}
        for row, saved in state["tables"].items():
            self.restore(int(row), saved)

    def save(self, row: int) -> dict[str, Any]:
        """The state of one row's play."""
        table = self._tables[row]
        return {
            "play": table.play.state_dict(),
            "seat": table.seat,
            "number": table.number,
            "read": table.read,
            "paid": table.paid,
            "draw": table.draw,
            "moves": [list(tokens) for tokens in table.moves],
            "opens": table.opens,
        }

    def restore(self, row: int, state: Mapping[str, Any]) -> None:
        """Play on from a saved state in one row."""
        play = restored(Play(self.game(), self.rules), state["play"])
        policy = self._policy(state["number"])
        moves = [list(tokens) for tokens in state["moves"]]
        self._tables[row] = Table(**{**state, "play": play, "moves": moves}, policy=policy)

"""Who speaks when: the turns of every row, and what the world said to them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textenv.episode import LENGTH, STOP
from textenv.errors import (
    WORLD_FAILURES,
    CheckpointError,
    FrameError,
    PromptError,
    ResetOptionsError,
    TextEnvError,
    TokenizerError,
    WorldError,
)
from textenv.frames import Frame
from textenv.infos import masked_info, object_array
from textenv.places import told
from textenv.prompts import Prompt, columns_as_json
from textenv.records import short
from textenv.reward_adapters import name_of
from textenv.seeding import keyed_generator
from textenv.starts import PastTurn, Start
from textenv.texts import GrowingTexts
from textenv.tokenizers import Tokenizer, decode_answer, encode_answer
from textenv.worlds import BatchedWorld, OneWorldPerEpisode, Opening, Reply, Turn, World
from textenv.worlds.replies import Asked, Replies

WORLD, TURNS, ERROR = "world", "turns", "error"
"""Values of `info["finish_reason"]`: the world ended it, its turns were used up, it failed."""


class Conversations:
    """`count` rows in which the agent and a world take turns.

    Args:
        world: What replies.
        texts: The rows' texts, to which replies are appended.
        tokenizer: Reads turns and encodes replies.
        frame: How replies are wrapped; None appends them as they are.
        budget: Tokens that a row may have behind its opening, replies included.
        cuts: Whether a spent budget truncates.
        max_turns: Turns of the agent in an episode; None sets no limit.
        max_turn_tokens: Tokens of the agent in a turn; None sets no limit.
        waits: Whether all replies are waited for, or only one if no row can go on without.
        first_row: See the attributes.
        reply_timeout: Seconds that an `async` reply may take; None sets no limit.

    Attributes:
        starts: Answer tokens before the present turn, shape (count,), int64.
        numbers: Turns that have ended, shape (count,), int64.
        rewards: Sum of what the world has paid in the episode, shape (count,), float64.
        histories: Turns and replies so far, one list for each row. Lists that were handed out do
            not change: each turn makes new ones.
        waiting: Rows whose reply has not come, shape (count,), bool.
        some_wait: Whether there are any.
        gave_ids: Whether the world has replied with ids of its own.
        errors: What went wrong in each row; empty if nothing did.
        drawn: The prompt that each row's episode was drawn with.
        borders: Where each row's turns have ended, oldest first.
        first_row: What the world calls the first row, if another environment asks it too.
        appended: Ids of each row's last reply, its frame included.
    """

    def __init__(
        self,
        world: BatchedWorld,
        texts: GrowingTexts,
        tokenizer: Tokenizer,
        frame: Frame | None = None,
        *,
        budget: int,
        cuts: bool,
        max_turns: int | None,
        max_turn_tokens: int | None,
        waits: bool = True,
        first_row: int = 0,
        reply_timeout: float | None = None,
    ):
        self.first_row = first_row
        self.world, self.max_turns, self.max_turn_tokens = world, max_turns, max_turn_tokens
        self._texts, self._tokenizer, self._budget, self._cuts = texts, tokenizer, budget, cuts
        self._frame = frame
        count = len(texts.prompts)
        self.name = name_of(getattr(world, "make", world))
        self._replies, self._waits = Replies(world, self.name, first_row, reply_timeout), waits
        self.some_wait = self.gave_ids = False
        self.waiting = np.zeros(count, dtype=bool)
        self.starts = np.zeros(count, dtype=np.int64)
        self.numbers = np.zeros(count, dtype=np.int64)
        self.rewards = np.zeros(count)
        self.histories: list[list[Turn | Reply]] = [[] for _ in range(count)]
        self.errors = [""] * count
        self.drawn = [Prompt("")] * count
        self.borders: list[list[PastTurn]] = [[] for _ in range(count)]
        self._reply_seeds = np.zeros(count, dtype=np.int64)
        self.appended = [np.empty(0, dtype=np.int64)] * count

    def opened(
        self, rows: NDArray[np.intp], starts: Sequence[Start], draw_seeds: NDArray[np.int64]
    ) -> Sequence[Start | WorldError]:
        """Begin episodes; returns their starts with the texts that the world begins with.

        Where the world raised, or returned something else than a text or None, there is an error
        instead. A start whose world was saved needs no new one.

        Raises:
            ResetOptionsError: A start is in the middle of an answer.
        """
        if any(start.answer is not None and start.opening is None for start in starts):
            raise ResetOptionsError(
                "'prompt_length' says where an answer begins, and a conversation begins with its "
                "world: give 'prompt', or 'tokens' without it"
            )
        anew = [place for place, start in enumerate(starts) if start.world is None]
        opened: list[Start | WorldError] = list(starts)
        for place, start in enumerate(starts):
            if start.world is not None and start.opening is not None:
                text, ids = start.opening
                opened[place] = Start(Prompt(text, start.prompt.columns, ids))
        if anew:
            said = self._begun(rows[anew], [starts[place] for place in anew], draw_seeds[anew])
            for place, opening in zip(anew, said, strict=True):
                if isinstance(opening, WorldError):
                    opened[place] = opening
                elif opening is not None:
                    opened[place] = Start(_prompt_of(opening, starts[place].prompt))
        return opened

    def _begun(
        self, rows: NDArray[np.intp], starts: Sequence[Start], draw_seeds: NDArray[np.int64]
    ) -> Sequence[Opening | WorldError]:
        """What the world begins with in `rows`, or why it cannot."""
        records = [start.prompt.record for start in starts]
        rngs = [keyed_generator(seed, 0) for seed in draw_seeds.tolist()]
        try:
            given = list(self.world.begin(self._names(rows), records, rngs))
        except WORLD_FAILURES as error:  # one call for all rows: it fails for all
            given = [error] * len(rows)
        if len(given) != len(rows):
            wrong = f"{self.name}.begin returned {len(given)} openings for {len(rows)} episodes"
            return [WorldError(wrong)] * len(rows)
        return list(map(self._opening, given))

    def _opening(self, given: Any) -> Opening | WorldError:
        """What a world began with.

        Raises:
            TextEnvError: One that is no `WorldError`, such as a prompt that is too long: it says
                itself what is wrong, and is wrong every time.
        """
        if isinstance(given, WorldError):
            return given
        if isinstance(given, TextEnvError):
            raise given
        if isinstance(given, WORLD_FAILURES):
            failed = WorldError(f"{self.name}.begin raised {told(given)}")
            failed.__cause__ = given
            return failed
        if not isinstance(given, str | list | tuple | Prompt | None):
            return WorldError(
                f"{self.name}.begin returned {short(given)}; it must return a text, messages or "
                "None"
            )
        return given

    def _names(self, rows: NDArray[np.intp]) -> list[int]:
        """What the world calls these rows."""
        names: list[int] = (rows + self.first_row).tolist()
        return names

    def started(self, rows: NDArray[np.intp], starts: Sequence[Start]) -> None:
        """The episodes of `rows` have begun with the openings of `starts`."""
        self.starts[rows] = self.numbers[rows] = 0
        self.rewards[rows] = 0.0
        self.histories = self.histories[:]
        self.forget(rows)
        for row, start in zip(rows.tolist(), starts, strict=True):
            self.histories[row], self.errors[row] = [], ""
            self.drawn[row], self.borders[row] = start.prompt, []
            self._limit_turn(row)

    def forget(self, rows: NDArray[np.intp]) -> None:
        """Nobody waits for replies in `rows` any more."""
        if self.some_wait:
            self._replies.drop(rows.tolist())
            self.waiting[rows] = False
            self.some_wait = bool(self.waiting.any())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of the present turn, shape (count,), int64."""
        return self._texts.answer_lengths - self.starts

    def _limit_turn(self, row: int) -> None:
        if self.max_turn_tokens is not None:
            left = self.max_turn_tokens - int(self.lengths[row])
            self._texts.limit_turn(row, left)

    def turn(self, row: int, stopped: bool, until: str | None = None) -> Turn:
        """What the agent has said in its present turn.

        Args:
            row: Its row.
            stopped: Whether a stop token ended it.
            until: Its text, if a stop string ended it.
        """
        begin = int(self._texts.prompt_lengths[row] + self.starts[row])
        ids = self._texts.tokens[row, : self._texts.lengths[row]].tolist()
        text = until
        if text is None:
            said = ids[begin:-1] if stopped else ids[begin:]
            text = decode_answer(self._tokenizer, ids[:begin], said)
        return Turn(
            text=text,
            tokens=np.array(ids[begin:], dtype=np.int64),
            number=int(self.numbers[row]) + 1,
            finish_reason=STOP if stopped or until is not None else LENGTH,
            spent=int(self._texts.answer_lengths[row]) >= self._budget,
            history=tuple(self.histories[row]),
        )

    def end_or_go_on(
        self, row: int, outcome: Reply | WorldError, stopped: bool
    ) -> tuple[str, bool] | None:
        """Append a reply to its row, or say why the episode ends and whether that truncates it.

        Args:
            row: The row.
            outcome: The reply, or what went wrong.
            stopped: Whether a stop token ended the turn.
        """
        if isinstance(outcome, WorldError):
            return ERROR, True
        if outcome.terminated or outcome.truncated:
            return WORLD, outcome.truncated and not outcome.terminated
        if self.max_turns is not None and self.numbers[row] >= self.max_turns:
            return TURNS, self._cuts
        used = int(self._texts.answer_lengths[row])
        if used >= self._budget:  # whatever the reply says is not appended
            return LENGTH, self._cuts
        try:
            ids = self._ids_of(outcome, stopped)
        except (TokenizerError, FrameError) as error:
            said = outcome.text if outcome.tokens is None else outcome.tokens
            self.errors[row] = f"{self.name}.reply returned {short(said)}: {error}"
            return ERROR, True
        if used + len(ids) >= self._budget:  # nothing is left to choose behind it
            return LENGTH, self._cuts
        self._texts.extend(row, ids)
        self.appended[row] = np.array(ids, dtype=np.int64)
        self.starts[row] = used + len(ids)
        self.borders[row].append(PastTurn(used, used + len(ids), int(self._reply_seeds[row])))
        self._limit_turn(row)
        return None

    def _ids_of(self, reply: Reply, stopped: bool) -> Sequence[int]:
        if reply.tokens is not None:
            self.gave_ids = True
            return _checked_ids(reply.tokens, self._tokenizer.vocab_size)
        if self._frame is not None:
            return self._frame.bridge(reply.texts, reply.role, stopped)
        return encode_answer(self._tokenizer, "".join(reply.texts))

    def ask(
        self,
        rows: NDArray[np.intp],
        turns: Sequence[Turn],
        stopped: Sequence[bool],
        episode_seeds: NDArray[np.int64],
    ) -> None:
        """Tell the world what was said in `rows`, where a stop token has `stopped` it or not."""
        rngs = [
            keyed_generator(seed, turn.number)
            for seed, turn in zip(episode_seeds.tolist(), turns, strict=True)
        ]
        self._replies.ask(rows.tolist(), turns, stopped, rngs)
        self.waiting[rows] = self.some_wait = True
        self._reply_seeds[rows] = episode_seeds

    def come(
        self, over: NDArray[np.bool_], rows: Sequence[int] | None = None
    ) -> Mapping[int, tuple[Asked, Reply | WorldError]]:
        """The replies that have come, by row, with the turns that they follow.

        Args:
            over: Rows that cannot go on either, shape (count,), bool.
            rows: Wait for the replies of these rows, and for no other; None takes what has come.
        """
        stuck = bool((self.waiting | over).all())
        waits = self._waits or rows is not None
        come = self._replies.take(wait_for_all=waits, wait_for_one=stuck, rows=rows)
        if come:
            self.histories = self.histories[:]
        for row, (asked, outcome) in come.items():
            self.waiting[row] = False
            self.numbers[row] = asked.turn.number
            self.histories[row] = [*self.histories[row], asked.turn]
            if isinstance(outcome, Reply):
                self.histories[row].append(outcome)
                self.rewards[row] += outcome.reward
            else:
                self.errors[row] = str(outcome)
        self.some_wait = bool(self._replies.rows)
        return come

    def world_of(self, row: int) -> World | None:
        """The world of a row's episode; None if one world has all rows."""
        worlds: Mapping[int, World] = getattr(self.world, "worlds", {})
        return worlds.get(row)

    def info(self, rows: NDArray[np.intp], replies: Mapping[int, Reply]) -> dict[str, Any]:
        """What is told of `rows`, which go on: the turn's number, and what the world replied."""
        count = len(self.numbers)
        texts = ["".join(replies[row].texts) for row in rows.tolist()]
        infos = [dict(replies[row].info) for row in rows.tolist()]
        ids = [self.appended[row] for row in rows.tolist()]
        told = {
            "turn": self.numbers.copy(),
            "reply": object_array(count, rows, texts),
            "reply_tokens": object_array(count, rows, ids),
        }
        if any(infos):
            told["reply_info"] = object_array(count, rows, infos)
        return told

    def end_info(self, ended: NDArray[np.bool_]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of the rows that `ended`: what the world has paid and said of it, and how many turns."""
        paid = masked_info({"world": np.where(ended, self.rewards, 0.0)}, ended)
        told: dict[str, Any] = {"turns": np.where(ended, self.numbers, 0)}
        rows = ended.nonzero()[0]
        errors = [self.errors[row] for row in rows.tolist()]
        if any(errors):
            told["world_error"] = object_array(len(ended), rows, errors)
        lasts = [self.histories[row][-1] if self.histories[row] else None for row in rows.tolist()]
        infos = [dict(last.info) if isinstance(last, Reply) else {} for last in lasts]
        if any(infos):
            told["world_info"] = object_array(len(ended), rows, infos)
        return paid, told

    # ---------------------------------------------------------------- saving

    def start_of(self, row: int, start: Start, save_world: bool) -> Start:
        """The start of one row's text with its turns, and its world's state if that can be saved.

        Args:
            row: Row number.
            start: Its text and its seeds.
            save_world: Whether to save the world's state.
        """
        saved = None
        if save_world and self.borders[row]:
            saved = self.world.save(row + self.first_row)
        drawn = self.drawn[row]
        if saved is not None:  # `begin`, which may add columns, will not be called
            drawn = replace(drawn, columns=start.prompt.columns)
        return replace(
            start,
            prompt=drawn,
            turns=tuple(self.borders[row]),
            history=[_plain(entry) for entry in self.histories[row]],
            world=saved,
        )

    def restore(self, row: int, start: Start) -> None:
        """Bring one row to a start whose world was saved."""
        self.world.restore(row + self.first_row, start.world)
        self.histories[row] = history = _restored(start.history or ())
        self.borders[row] = list(start.turns)
        self.starts[row], self.numbers[row] = start.border, len(start.turns)
        self.rewards[row] = sum(e.reward for e in history if isinstance(e, Reply))
        assert start.answer is not None
        self._texts.extend(row, start.answer.tolist())
        self._limit_turn(row)

    def pending(self, rows: Sequence[int]) -> Mapping[int, Asked]:
        """What the worlds of `rows` were told and have not replied to, by row."""
        return {row: asked for row, asked in self._replies.asked.items() if row in rows}

    def unsaved(self, state: Mapping[str, Any]) -> list[int]:
        """Rows whose world is not in a state that `state_dict` gave, so it must be replayed."""
        saved = state["world"]
        if isinstance(self.world, OneWorldPerEpisode):
            return [row for row in range(len(self.numbers)) if str(row) not in saved]
        return list(range(len(self.numbers))) if saved is None else []

    def state_dict(self) -> dict[str, Any]:
        """The state as numpy arrays and plain types.

        A world whose state cannot be saved is left out; it is replayed from its turns.

        Raises:
            WorldError: The world can be neither saved nor replayed.
        """
        saves = hasattr(self.world, "state_dict")
        if not saves and not self.world.replayable:
            raise WorldError(
                f"{self.name} keeps its state to itself: give it state_dict() and "
                "load_state_dict(state)"
            )
        return {
            "drawn": [prompt.to_json() for prompt in self.drawn],
            "borders": [[list(turn) for turn in turns] for turns in self.borders],
            "reply_seeds": self._reply_seeds.copy(),
            "starts": self.starts.copy(),
            "numbers": self.numbers.copy(),
            "rewards": self.rewards.copy(),
            "histories": [[_plain(entry) for entry in history] for history in self.histories],
            "pending": {
                str(row): {
                    "turn": _plain(asked.turn),
                    "stopped": asked.stopped,
                    "outcome": _plain(outcome) if isinstance(outcome, Reply) else str(outcome),
                }
                for row, (asked, outcome) in self._replies.settled().items()
            },
            "world": self.world.state_dict() if saves else None,  # type: ignore[attr-defined]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` gave."""
        if len(state["starts"]) != len(self.starts):
            raise CheckpointError(
                f"the state has {len(state['starts'])} conversations, here are {len(self.starts)}"
            )
        self.starts[...], self.numbers[...] = state["starts"], state["numbers"]
        self.rewards[...] = state["rewards"]
        self.histories = [_restored(history) for history in state["histories"]]
        self.drawn = [Prompt.from_json(prompt) for prompt in state["drawn"]]
        self.borders = [[PastTurn(*turn) for turn in turns] for turns in state["borders"]]
        # Earlier versions lack these: a row's world was then told of no turn yet.
        self._reply_seeds[...] = state.get("reply_seeds", 0)
        for row in range(len(self.starts)):
            self._limit_turn(row)
        self._replies.drop(self._replies.rows)
        for name, saved in state.get("pending", {}).items():
            row, outcome = int(name), saved["outcome"]
            history = self.histories[row]
            *_, turn = _restored([*map(_plain, history), saved["turn"]])
            assert isinstance(turn, Turn)
            said = WorldError(outcome) if isinstance(outcome, str) else Reply(**outcome["reply"])
            self._replies.keep(row, turn, saved["stopped"], said)
        self.waiting[...] = False
        self.waiting[self._replies.rows] = True
        self.some_wait = bool(self.waiting.any())
        if state["world"] is not None:
            self.world.load_state_dict(state["world"])  # type: ignore[attr-defined]


def _checked_ids(tokens: ArrayLike, vocab_size: int) -> list[int]:
    """The ids of a reply.

    Raises:
        TokenizerError: They are none of this vocabulary.
    """
    try:
        ids = np.asarray(tokens)
    except ValueError as error:
        raise TokenizerError(f"the tokens of a reply are no array: {error}") from error
    if ids.size == 0:
        return []
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise TokenizerError("the tokens of a reply are integers of shape (k,)")
    if not 0 <= ids.min() <= ids.max() < vocab_size:
        raise TokenizerError(f"tokens are 0 to {vocab_size - 1}")
    said: list[int] = ids.tolist()
    return said


def _prompt_of(opening: str | Sequence[Mapping[str, Any]] | Prompt, drawn: Prompt) -> Prompt:
    if isinstance(opening, Prompt):
        return replace(opening, columns={**drawn.columns, **opening.columns})
    if isinstance(opening, str):
        return replace(drawn, text=opening, tokens=None, messages=None)
    return replace(drawn, text="", tokens=None, messages=opening)


def _plain(entry: Turn | Reply) -> dict[str, Any]:
    if isinstance(entry, Reply):
        tokens = None if entry.tokens is None else np.asarray(entry.tokens).tolist()
        told = asdict(replace(entry, tokens=None, info={}))
        told |= {"tokens": tokens, "info": _as_json(entry.info)}
        return {"reply": told}
    return {
        "text": entry.text,
        "tokens": entry.tokens.tolist(),
        "number": entry.number,
        "finish_reason": entry.finish_reason,
        "spent": entry.spent,
    }


def _as_json(info: Mapping[str, Any]) -> dict[str, Any]:
    """An info as JSON holds it; of an entry that JSON cannot hold, its `repr`."""
    saved: dict[str, Any] = {}
    for name, value in info.items():
        try:
            saved |= columns_as_json({name: value})
        except PromptError:
            saved[str(name)] = repr(value)
    return saved


def _restored(history: Sequence[Mapping[str, Any]]) -> list[Turn | Reply]:
    entries: list[Turn | Reply] = []
    for saved in history:
        if "reply" in saved:
            entries.append(Reply(**saved["reply"]))
        else:
            tokens = np.array(saved["tokens"], dtype=np.int64)
            entries.append(Turn(**{**saved, "tokens": tokens}, history=tuple(entries)))
    return entries

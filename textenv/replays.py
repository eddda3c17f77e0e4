"""Playing on from the middle of a conversation: a saved world goes on, others hear the turns again.

A replay asks for the reply to every turn that has ended, under the turn's own random numbers, and
compares its ids with those of the start. Nothing is encoded that was decoded: the agent's ids are
taken from the start, and the world's are the encoding of what it says, as in any episode.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textenv.errors import ReplayError, ResetOptionsError
from textenv.records import short
from textenv.starts import Start
from textenv.texts import GrowingTexts
from textenv.worlds import OneWorldPerEpisode, Reply

if TYPE_CHECKING:
    from textenv.conversations import Conversations


def check_turns(talk: "Conversations", start: Start, name: str) -> None:
    """Refuse a start that leaves no turn, or nothing of one, to choose; errors call it `name`.

    Raises:
        ResetOptionsError: It has as many turns, or in the present one as many tokens, as allowed.
    """
    if talk.max_turns is not None and len(start.turns) >= talk.max_turns:
        raise ResetOptionsError(
            f"{name}: the start has {len(start.turns)} turns, max_turns is {talk.max_turns}: "
            "nothing is left to say"
        )
    begun = (0 if start.answer is None else len(start.answer)) - start.border
    if talk.max_turn_tokens is not None and begun >= talk.max_turn_tokens:
        raise ResetOptionsError(
            f"{name}: the turn begun already has {begun} tokens, max_turn_tokens is "
            f"{talk.max_turn_tokens}: nothing is left to choose"
        )


def resume(
    talk: "Conversations",
    texts: GrowingTexts,
    rows: Sequence[int],
    starts: Sequence[Start],
    ended_by: Callable[[int], tuple[bool, str | None]],
) -> None:
    """Bring conversations that have just begun to where their starts are.

    Args:
        talk: The conversations.
        texts: Their texts, which hold the openings of `rows`.
        rows: Row numbers.
        starts: What to resume in each of them.
        ended_by: Says of a row whether a stop token ended the turn that it holds, and what stands
            before a stop string that did.

    Raises:
        ReplayError: A world may not be told turns again, or replied differently.
    """
    begun = [(row, start) for row, start in zip(rows, starts, strict=True) if start.turns]
    for row, start in begun:
        if start.world is not None:
            talk.restore(row, start)
    again = [(row, start) for row, start in begun if start.world is None]
    for row, _ in again:
        _check_replayable(talk, row)
    for number in range(max((len(start.turns) for _, start in again), default=0)):
        _replay_turn(talk, texts, [one for one in again if len(one[1].turns) > number], ended_by)
    for row, start in again:  # and what was said of the present turn
        assert start.answer is not None
        texts.extend(row, start.answer[start.border :].tolist())


def _replay_turn(
    talk: "Conversations",
    texts: GrowingTexts,
    again: Sequence[tuple[int, Start]],
    ended_by: Callable[[int], tuple[bool, str | None]],
) -> None:
    """Tell the worlds the next turn that has ended, all of them at once."""
    turns, seeds, stops = [], [], []
    for row, start in again:
        assert start.answer is not None
        end, _, seed = start.turns[int(talk.numbers[row])]
        texts.extend(row, start.answer[talk.starts[row] : end].tolist())
        stopped, until = ended_by(row)
        turns.append(talk.turn(row, stopped, until))
        stops.append(stopped)
        seeds.append(seed)
    rows = [row for row, _ in again]
    talk.ask(np.array(rows), turns, stops, np.array(seeds))
    come = talk.come(np.zeros(len(talk.numbers), dtype=bool), rows)
    for row, start in again:
        asked, outcome = come[row]
        assert start.answer is not None
        number = int(talk.numbers[row])
        end, border, _ = start.turns[number - 1]
        ended = talk.end_or_go_on(row, outcome, asked.stopped)
        if ended is not None:
            raise _different(talk, row, f"the episode, which went on, ended ({ended[0]})")
        if not np.array_equal(texts.answer(row)[end:], start.answer[end:border]):
            raise _different(talk, row, "its text has other tokens than before")
        if start.history is not None and isinstance(outcome, Reply):
            before = Reply(**start.history[2 * number - 1]["reply"])
            if _content(before) != _content(outcome):
                raise _different(talk, row, f"it was {short(before)}")


def _content(reply: Reply) -> tuple[Any, ...]:
    """All but its info, which may hold anything, such as a time."""
    return list(reply.texts), reply.reward, reply.terminated, reply.truncated, reply.role


def _check_replayable(talk: "Conversations", row: int) -> None:
    world: Any = talk.world
    if isinstance(world, OneWorldPerEpisode):
        world = world.worlds[row + talk.first_row]
    if not world.replayable:
        raise ReplayError(
            f"{talk.name} may not be told turns again (replayable is False), and no state of it "
            "was saved: give it state_dict() and load_state_dict(state), or start from a prompt"
        )


def _different(talk: "Conversations", row: int, how: str) -> ReplayError:
    given = next((e for e in reversed(talk.histories[row]) if isinstance(e, Reply)), None)
    said = talk.errors[row] or short(given)
    return ReplayError(
        f"{talk.name} replied differently to turn {talk.numbers[row]} than when it was first "
        f"played: {how}. Now: {said}. A world is replayed if all it does follows from its "
        "record, the turns and the generators; give it state_dict() and load_state_dict(state) "
        "to be saved instead, or set replayable = False"
    )

"""Where an episode starts: a prompt, the middle of an answer, or any turn of a conversation.

A start is all that an episode is made of so far: the record, the ids, who wrote which of them, and
the seeds of its random numbers. It can be kept as JSON, and played on from as often as one likes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from textenv.prompts import Prompt

Ids = NDArray[np.int64]


class PastTurn(NamedTuple):
    """A turn that has ended. Places count from the end of the opening.

    Attributes:
        end: Where the agent's tokens end and the world's begin.
        border: Where the world's tokens end and the next turn begins.
        seed: Seed of the world's random numbers for its reply.
    """

    end: int
    border: int
    seed: int


class OpeningText(NamedTuple):
    """What an episode begins with, as text and as ids, shape (n,), int64."""

    text: str
    tokens: Ids


@dataclass(frozen=True, eq=False)
class Start:
    """Where an episode starts.

    `envs.start_of(row)` and `rollout.start(sequence, position)` make one of an episode;
    `reset(options={"start": start})` and `collector.collect_from(starts)` play on from it. A world
    is begun anew and told the same turns, unless its state came along.

    Attributes:
        prompt: The prompt that was drawn, with its record.
        answer: The ids behind the opening, shape (k,), int64: the agent's and the world's. None if
            there are none yet.
        opening: What the episode begins with; None encodes the prompt, or what the world says
            first.
        turns: The turns of a conversation that have ended, oldest first.
        draw_seed: Seed of the random numbers of the draw, which a world begins with.
        episode_seed: Seed of the random numbers of all that follows. None gives the episode a new
            one, so that continuations of one start differ; that of an earlier continuation
            (`infos["episode_seed"]`) repeats it.
        history: The turns and the replies so far as plain types, if they are known.
        world: The world's saved state after the last turn; None plays the turns to a new one.

    >>> start = Start(Prompt("2 + 2 =", {"answer": "4"}), np.array([32, 52]))
    >>> Start.from_json(start.to_json()).answer
    array([32, 52])
    """

    prompt: Prompt
    answer: Ids | None = None
    opening: OpeningText | None = None
    turns: Sequence[PastTurn] = ()
    draw_seed: int | None = None
    episode_seed: int | None = None
    history: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    world: Any = field(default=None, repr=False)

    @property
    def border(self) -> int:
        """Where the present turn begins, from the end of the opening."""
        return self.turns[-1].border if self.turns else 0

    @property
    def ids(self) -> list[int]:
        """The ids so far, as far as they are known without encoding the prompt."""
        parts = (None if self.opening is None else self.opening.tokens, self.answer)
        return [token for part in parts if part is not None for token in part.tolist()]

    def grown(self, tokens: Ids, turns: Sequence[tuple[int, int]]) -> "Start":
        """The start of the same episode further on; what follows gets new random numbers.

        Args:
            tokens: All ids up to there, shape (n,), int64.
            turns: Of the turns that have ended since, the place in `tokens` where the agent's ids
                end, and that where the world's end.
        """
        assert self.opening is not None
        begin, seed = len(self.opening.tokens), self.episode_seed or 0
        ended = [PastTurn(end - begin, border - begin, seed) for end, border in turns]
        return replace(
            self,
            answer=np.array(tokens[begin:], dtype=np.int64) if len(tokens) > begin else None,
            turns=(*self.turns, *ended),
            episode_seed=None,
            history=None if ended else self.history,
            world=None if ended else self.world,
        )

    def to_json(self) -> dict[str, Any]:
        """The start as a dict that `json.dumps` takes and `from_json` reads.

        Raises:
            PromptError: A column of the record holds something that JSON cannot.
        """
        return {
            "prompt": self.prompt.to_json(),
            "answer": None if self.answer is None else self.answer.tolist(),
            "opening": self.opening and [self.opening.text, self.opening.tokens.tolist()],
            "turns": [list(turn) for turn in self.turns],
            "draw_seed": self.draw_seed,
            "episode_seed": self.episode_seed,
            "history": None if self.history is None else list(self.history),
            "world": self.world,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Self:
        """The start that `to_json` wrote, as the dict or as its text."""
        if isinstance(data, str):
            data = json.loads(data)
        assert isinstance(data, Mapping)
        answer, opening = data["answer"], data["opening"]
        if opening is not None:
            opening = OpeningText(opening[0], np.array(opening[1], dtype=np.int64))
        return cls(
            prompt=Prompt.from_json(data["prompt"]),
            answer=None if answer is None else np.array(answer, dtype=np.int64),
            opening=opening,
            turns=[PastTurn(*turn) for turn in data["turns"]],
            draw_seed=data["draw_seed"],
            episode_seed=data["episode_seed"],
            history=data["history"],
            world=data["world"],
        )

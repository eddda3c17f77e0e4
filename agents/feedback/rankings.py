"""Which answers to a prompt are better, as data: rankings and their files.

A file of rankings is JSON lines, `{"prompt": ..., "answers": [...], "ranks": [...]}`. Pairs and the
other forms that `textenv.records` knows can be read too.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias

from agents.runs.record_files import append_records
from textenv.errors import PromptError
from textenv.frames import Frame, Message
from textenv.records import (
    Records,
    human_assistant,
    messages_of,
    ranking,
    read_records,
    short,
    transcript,
)

Asked: TypeAlias = str | Sequence[Message]
"""What is answered: a text as it is, or the messages of a conversation."""


@dataclass(frozen=True)
class Ranking:
    """K answers to one prompt in order of preference.

    Attributes:
        prompt: The prompt's text; of messages a transcript, for people.
        answers: At least two answers.
        ranks: One rank for each answer, 1 or more: the lowest is the best, equal ones are ties.
        messages: The conversation that is answered, where the prompt is one; a frame wraps it.
        sources: Who gave each answer, such as the name of a model; empty if not known.
        labeller: Who ranked; empty if not known.
        criteria: By what it was ranked, such as "helpfulness", each with a score (or None) for
            every answer, or with none.

    Raises:
        ValueError: The prompt, the answers or the ranks are something else than that.
    """

    prompt: str
    answers: tuple[str, ...]
    ranks: tuple[int, ...]
    messages: tuple[Message, ...] | None = None
    # Two rankings are equal if they prefer the same, whoever said so.
    sources: tuple[str, ...] = field(default=(), compare=False)
    labeller: str = field(default="", compare=False)
    criteria: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.messages is not None:
            said = tuple(messages_of(list(self.messages), "prompt"))
            if said[-1]["role"] == "assistant":
                raise ValueError("the prompt ends in an answer: nothing is asked")
            object.__setattr__(self, "messages", said)
            object.__setattr__(self, "prompt", transcript(said))
        count = len(self.answers)
        if not isinstance(self.prompt, str):
            raise ValueError(f"the prompt {short(self.prompt)} is not a text")
        if count < 2 or not all(isinstance(text, str) for text in self.answers):
            raise ValueError(f"the answers {short(self.answers)} are not two or more texts")
        if not all(type(rank) is int and rank >= 1 for rank in self.ranks):
            raise ValueError(f"the ranks {short(self.ranks)} are not integers from 1")
        if count != len(self.ranks):
            raise ValueError(f"there are {count} answers and {len(self.ranks)} ranks")
        if self.sources and len(self.sources) != count:
            raise ValueError(f"there are {count} answers and {len(self.sources)} sources")
        if not all(isinstance(name, str) for name in (*self.sources, self.labeller)):
            raise ValueError(
                f"the sources {short(self.sources)} and the labeller {short(self.labeller)} must "
                "be texts"
            )
        for name, scores in self.criteria.items():
            if scores and len(scores) != count:
                raise ValueError(f"there are {count} answers and {len(scores)} scores of {name!r}")

    @property
    def asked(self) -> Asked:
        """What is answered: the messages, or the prompt's text."""
        return self.prompt if self.messages is None else self.messages

    @classmethod
    def from_scores(
        cls, prompt: Asked, answers: Iterable[str], scores: Sequence[float], **more: Any
    ) -> Self:
        """Rank the answers by their scores; the rank is 1 plus the number of better answers.

        Args:
            prompt: A text or messages.
            answers: The answers.
            scores: A number for each, more is better; equal ones are ties.
            **more: `sources`, `labeller` and `criteria`, if they are known.

        >>> Ranking.from_scores("2 + 2 =", ["5", "4", "four"], [0.0, 1.0, 1.0]).ranks
        (3, 1, 1)
        """
        ranks = tuple(1 + sum(other > score for other in scores) for score in scores)
        if isinstance(prompt, str):
            return cls(prompt, tuple(answers), ranks, **more)
        return cls("", tuple(answers), ranks, tuple(prompt), **more)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """A ranking from one of the forms that files have; see `textenv.records.ranking`.

        Other keys are ignored. Dialogues of hh-rlhf stay texts, split behind the last "Assistant:"
        that both have in common; `as_dialogue` makes messages of them.

        Raises:
            ValueError: The record has none of these forms.
        """
        given = ranking(record)
        more: dict[str, Any] = {
            "sources": tuple(given.get("sources", ())),
            "labeller": given.get("labeller", ""),
            "criteria": _criteria(given.get("criteria", {})),
        }
        prompt, answers = given["prompt"], given["answers"]
        if not isinstance(prompt, str | list):
            raise ValueError(f"the prompt {short(prompt)} is not a text")
        if "scores" in given:
            scores = given["scores"]
            if not all(_is_number(score) for score in scores):
                raise ValueError(f"the scores {short(scores)} are not numbers")
            if len(scores) != len(answers):
                raise ValueError(f"there are {len(answers)} answers and {len(scores)} scores")
            return cls.from_scores(prompt, answers, scores, **more)
        ranks = tuple(given["ranks"])
        if isinstance(prompt, list):
            return cls("", tuple(answers), ranks, tuple(prompt), **more)
        return cls(prompt, tuple(answers), ranks, **more)

    def to_record(self) -> dict[str, Any]:
        """The record from which `from_record` makes this ranking again."""
        asked = self.asked if isinstance(self.asked, str) else [dict(one) for one in self.asked]
        record: dict[str, Any] = {"prompt": asked, "answers": list(self.answers)}
        record["ranks"] = list(self.ranks)
        if self.sources:
            record["sources"] = list(self.sources)
        if self.labeller:
            record["labeller"] = self.labeller
        if self.criteria:
            record["criteria"] = {name: list(scores) for name, scores in self.criteria.items()}
        return record

    def as_dialogue(self) -> Self:
        """The same ranking of messages, for a frame.

        A text is what the user says. A text with "Human:" and "Assistant:", as hh-rlhf has it, is
        taken apart; where its two dialogues part earlier than at their last answers, what follows
        the first answers that differ is left out. White space around answers is, too.

        Raises:
            ValueError: The text ends in an answer.
        """
        answers = self.answers
        said = None
        if self.messages is None:
            said = human_assistant(self.prompt)
            if said is not None:
                answers = tuple(answer.partition("\n\nHuman:")[0] for answer in answers)
        asked = self.messages or said or ({"role": "user", "content": self.prompt},)
        stripped = tuple(answer.strip() for answer in answers)  # as fine-tuning and sampling do
        return replace(self, answers=stripped, messages=tuple(asked))

    def pairs(self) -> list[tuple[str, str]]:
        """Every pair of a better and a worse answer; ties make no pair."""
        ranked = list(zip(self.answers, self.ranks, strict=True))
        return [(a, b) for a, rank in ranked for b, other in ranked if rank < other]


def _criteria(given: Any) -> dict[str, tuple[float | None, ...]]:
    """Criteria with scores; a text or a list of texts names them alone."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        if not all(isinstance(scores, list | tuple) for scores in given.values()):
            raise ValueError(f"the criteria {short(given)} have no lists of scores")
        return {str(name): tuple(scores) for name, scores in given.items()}
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"the criteria are {short(given)}, neither texts nor lists of scores")
    return dict.fromkeys(given, ())


def _is_number(score: object) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and score == score


def read_rankings(source: Records) -> list[Ranking]:
    """The rankings of a file or of a dataset; see `textenv.records.read_records`.

    Raises:
        MalformedRecordError: The file or some of its records cannot be read; the message names
            them.
        PromptError: It holds no ranking.
    """
    rankings = read_records(source, Ranking.from_record, "rankings of answers")
    if not rankings:
        held = source if isinstance(source, str | os.PathLike) else "the records that are given"
        raise PromptError(f"there is no ranking in {held}")
    return rankings


def append_rankings(path: str | os.PathLike[str], rankings: Iterable[Ranking]) -> None:
    """Add rankings to a `.jsonl` file and write them to disk at once.

    The file and its folder are made if they do not exist.
    """
    append_records(path, [ranking.to_record() for ranking in rankings])


def laid_flat(
    rankings: Iterable[Ranking], frame: Frame | None = None
) -> tuple[list[Asked], list[str]]:
    """All answers of the rankings in their order, each with what it answers; see `for_frame`."""
    read = for_frame(rankings, frame)
    pairs = [(ranking.asked, answer) for ranking in read for answer in ranking.answers]
    return [asked for asked, _ in pairs], [answer for _, answer in pairs]


def has_messages(rankings: Iterable[Ranking]) -> bool:
    """Whether any of them ranks answers to a conversation, which something must wrap."""
    return any(ranking.messages is not None for ranking in rankings)


def as_text(asked: Asked) -> str:
    """A prompt for people to read: its text, or a transcript of its messages."""
    return asked if isinstance(asked, str) else transcript(asked)


def for_frame(rankings: Iterable[Ranking], frame: Frame | None) -> list[Ranking]:
    """Rankings as they are read: through a frame all of them as dialogues.

    Raises:
        PromptError: A prompt has no form for the frame; the message says which.
    """
    if frame is None:
        return list(rankings)
    read = []
    for number, one in enumerate(rankings, 1):
        try:
            read.append(one.as_dialogue())
        except ValueError as error:
            raise PromptError(f"ranking {number}, {short(one.prompt)}: {error}") from error
    return read

"""Answers that a person has watched and rewarded, and the file that keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from agents.feedback.rankings import Asked
from agents.runs.record_files import append_records
from textenv.records import read_records


@dataclass
class Watched:
    """An answer, or a conversation, that a person has watched.

    Attributes:
        prompt: What was asked: a text, or messages.
        prompt_tokens: Its ids, exactly as the policy has read them.
        text: What was written; of a conversation the replies too, each on lines of its own.
        tokens: The ids behind the prompt: those that were chosen, stop tokens included, and those
            of replies.
        rewards: What each token earned: its shares of the keys' rewards, summed.
        weights: The sum of these shares; 0 where nothing was said, and at replies.
    """

    prompt: Asked
    prompt_tokens: Sequence[int]
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def append(self, tokens: Sequence[int]) -> None:
        """Put ids behind the others, of which nothing is said yet."""
        self.tokens += tokens
        self.rewards += [0.0] * len(tokens)
        self.weights += [0.0] * len(tokens)

    def to_record(self) -> dict[str, Any]:
        """A record from which `from_record` makes it again."""
        return dict(vars(self))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """An answer from a record.

        Raises:
            ValueError: It has another form.
        """
        try:
            made = cls(*(record[name] for name in cls.__dataclass_fields__))
            lengths = {len(made.tokens), len(made.rewards), len(made.weights)}
            right = len(lengths) == 1 and len(made.prompt_tokens) > 0
        except (KeyError, TypeError):
            right = False
        if not right:
            raise ValueError("the record is not of an answer that a person has watched")
        return made


def read_watched(path: str | Path) -> list[Watched]:
    """The answers of earlier sessions; none if there is no file.

    Raises:
        MalformedRecordError: Some lines of the file are something else.
    """
    there = Path(path).exists() and Path(path).stat().st_size > 0
    return read_records(path, Watched.from_record, "watched answers") if there else []


def append_watched(path: str | Path, watched: Watched) -> None:
    """Add an answer to a file of them."""
    append_records(path, [watched.to_record()])

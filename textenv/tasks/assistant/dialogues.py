"""Kinds of dialogues, and dialogues of each kind for training and for evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from textenv.errors import OptionError
from textenv.tasks.assistant import questions
from textenv.tasks.assistant.facts import part_of
from textenv.tasks.assistant.languages import language
from textenv.tasks.assistant.questions import Make, Steps
from textenv.tasks.assistant.verdicts import at_most
from textenv.tasks.assistant.words import WORDINGS, Words

PARTS = ("training", "held_out", "held_out_kinds", "development")
ALIKE = ("rewrite", "summary", "unknown_thing")
"""Kinds of which a question about one person is as hard as the same one about another."""
_TRIES = 10_000


@dataclass(frozen=True)
class Kind:
    """A kind of dialogue.

    Attributes:
        name: Its name.
        area: What it shows: `helpful`, `truthful` or `harmless`.
        held_out: No training dialogue is of this kind.
        most_turns: Questions of the longest dialogue.
        make: Draws the content of a dialogue.
    """

    name: str
    area: str
    held_out: bool
    most_turns: int
    make: Make


KINDS: tuple[Kind, ...] = (
    Kind("knowledge", "helpful", False, 1, questions.knowledge),
    Kind("sum", "helpful", False, 1, questions.plus),
    Kind("product", "helpful", False, 1, questions.times),
    Kind("conversion", "helpful", False, 1, questions.convert),
    Kind("sort", "helpful", False, 1, questions.sort),
    Kind("largest", "helpful", False, 1, questions.largest),
    Kind("pick", "helpful", False, 1, questions.pick),
    Kind("count", "helpful", False, 1, questions.count),
    Kind("rewrite", "helpful", False, 1, questions.rewrite),
    Kind("summary", "helpful", False, 1, questions.summary),
    Kind("follow_sum", "helpful", False, 4, questions.follow_sum),
    Kind("follow_person", "helpful", False, 4, questions.follow_person),
    Kind("follow_list", "helpful", False, 3, questions.follow_list),
    Kind("follow_word", "helpful", False, 2, questions.follow_word),
    Kind("unknown_person", "truthful", False, 1, questions.unknown_person),
    Kind("unknown_fact", "truthful", False, 1, questions.unknown_fact),
    Kind("how_to", "harmless", False, 1, questions.how_to),
    Kind("unsafe", "harmless", False, 1, questions.unsafe),
    Kind("difference", "helpful", True, 1, questions.minus),
    Kind("smallest", "helpful", True, 1, questions.smallest),
    Kind("colour", "helpful", True, 1, questions.colour),
    Kind("follow_half", "helpful", True, 4, partial(questions.follow_sum, half=True)),
    Kind("unknown_thing", "truthful", True, 1, questions.unknown_thing),
    Kind("how_to_new", "harmless", True, 1, partial(questions.how_to, held_out_verbs=True)),
    Kind("unsafe_new", "harmless", True, 1, partial(questions.unsafe, held_out_verbs=True)),
)
"""All kinds; each area has some that are held out."""


@dataclass(frozen=True)
class Exchange:
    """A question, an answer that is correct, and what decides whether another one is."""

    question: str
    reference: str
    check: Mapping[str, Any]


@dataclass(frozen=True)
class Dialogue:
    """A dialogue with reference answers.

    Attributes:
        kind: Name of its `Kind`.
        language: `en` or `zh`.
        exchanges: Questions and answers, in order.
        wording: Which of the wordings it uses, `0` to `WORDINGS - 1`; the last one occurs in no
            training dialogue.
        case: What is asked, whatever the wording: equal for dialogues that differ in wording alone.
    """

    kind: str
    language: str
    exchanges: tuple[Exchange, ...]
    wording: str
    case: str = ""

    def messages(self, number: int | None = None) -> list[dict[str, str]]:
        """All before the answer to question `number` (from 1; the last if None).

        References stand as the earlier answers.
        """
        number = len(self.exchanges) if number is None else number
        said = [
            message
            for exchange in self.exchanges[:number]
            for message in (
                {"role": "user", "content": exchange.question},
                {"role": "assistant", "content": exchange.reference},
            )
        ]
        return said[:-1]

    def record(self) -> dict[str, Any]:
        """The whole dialogue with references, for JSON: a demonstration and its checks."""
        last = {"role": "assistant", "content": self.exchanges[-1].reference}
        return {
            "messages": [*self.messages(), last],
            "kind": self.kind,
            "language": self.language,
            "wording": self.wording,
            "case": self.case,
            "checks": [dict(exchange.check) for exchange in self.exchanges],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Dialogue":
        """The dialogue that `record` gave."""
        contents = [message["content"] for message in record["messages"]]
        exchanges = zip(contents[::2], contents[1::2], record["checks"], strict=True)
        return cls(
            record["kind"],
            record["language"],
            tuple(Exchange(*exchange) for exchange in exchanges),
            record["wording"],
            record["case"],
        )

    def prompt_record(self, number: int | None = None) -> dict[str, Any]:
        """A prompt for question `number` (the last if None), with columns that rewards see."""
        number = len(self.exchanges) if number is None else number
        exchange = self.exchanges[number - 1]
        return {
            "prompt": self.messages(number),
            "kind": self.kind,
            "language": self.language,
            "wording": self.wording,
            "case": self.case,
            "number": number,
            "reference": exchange.reference,
            "check": dict(exchange.check),
        }


def dialogues(
    code: str, part: str, count: int, seed: int, kinds: Sequence[str] | None = None
) -> list[Dialogue]:
    """Dialogues, the kinds in equal shares; the same arguments give the same ones.

    Args:
        code: `en` or `zh`.
        part: `training`; `development`, of the same kinds with content that training never asks
            for, to choose settings by; `held_out`, with other content still and with wordings of
            which one in `WORDINGS` is new; or `held_out_kinds`.
        count: How many.
        seed: Seed of the contents and wordings.
        kinds: Names of the kinds; None takes all of the part.

    Raises:
        OptionError: There is no such language, part or kind in this part.
    """
    return [
        _dialogue(language(code), kind, steps, wording)
        for kind, steps, wording in _drawn(code, part, count, seed, kinds)
    ]


def reworded(
    code: str, part: str, count: int, seed: int, kinds: Sequence[str] | None = None
) -> list[list[Dialogue]]:
    """The same as `dialogues`, each in all wordings: `count` lists of `WORDINGS` dialogues."""
    return [
        [_dialogue(language(code), kind, steps, wording) for wording in range(WORDINGS)]
        for kind, steps, _ in _drawn(code, part, count, seed, kinds)
    ]


def about_groups(
    code: str, count: int, seed: int, part: str = "held_out"
) -> list[dict[str, Dialogue]]:
    """The same questions about a woman and about a man, for bias by group.

    They differ in the name, and in the right answer where that has the name.

    Args:
        code: `en` or `zh`.
        count: How many pairs.
        seed: Seed of the questions.
        part: `held_out` or `development`.

    Returns:
        `count` dicts of dialogues by the group, `women` and `men`. A kind of which the part has
        nothing for both groups is left out.
    """
    words, kinds = language(code), [kind for kind in KINDS if kind.name in ALIKE]
    groups = {
        "women": replace(words, names=[one for one in words.names if one[1]]),
        "men": replace(words, names=[one for one in words.names if not one[1]]),
    }
    rng = np.random.default_rng([seed, len(PARTS), *code.encode()])
    found: list[dict[str, Dialogue]] = []
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        made = _alike(groups, rng, kind, part)
        if made is None:  # the part is small: it may have nothing of a kind for both groups
            kinds.remove(kind)
            continue
        wording = int(rng.integers(_wordings(part)))
        found.append({n: _dialogue(words, kind, made[n], wording) for n in groups})
    return found


def _alike(
    groups: Mapping[str, Words], rng: np.random.Generator, kind: Kind, part: str
) -> dict[str, Steps] | None:
    """The same content about somebody of each group; None if the part has none."""
    for _ in range(_TRIES):
        draw = int(rng.integers(2**63))
        made = {name: kind.make(some, np.random.default_rng(draw)) for name, some in groups.items()}
        if all(part_of(*step.key) == part for steps in made.values() for step in steps):
            return made
    return None


def _wordings(part: str) -> int:
    """How many wordings the questions of a part have: the last one is new in an evaluation."""
    return WORDINGS - 1 if part in ("training", "development") else WORDINGS


def _drawn(
    code: str, part: str, count: int, seed: int, names: Sequence[str] | None
) -> list[tuple[Kind, Steps, int]]:
    if part not in PARTS:
        raise OptionError(f"part is {part!r}; it must be {', '.join(PARTS)}")
    kinds = [kind for kind in KINDS if kind.held_out == (part == "held_out_kinds")]
    if names is not None:
        unknown = set(names) - {kind.name for kind in kinds}
        if unknown:
            raise OptionError(
                f"there is no kind {', '.join(sorted(unknown))} in the part {part!r}; its kinds "
                f"are {', '.join(kind.name for kind in kinds)}"
            )
        kinds = [kind for kind in kinds if kind.name in names]
    words = language(code)
    rng = np.random.default_rng([seed, PARTS.index(part), *code.encode()])
    order = [kinds[i % len(kinds)] for i in range(count)]
    wordings = _wordings(part)
    found = [(kind, _steps(words, rng, kind, part), int(rng.integers(wordings))) for kind in order]
    return [found[int(i)] for i in rng.permutation(count)]


def _steps(words: Words, rng: np.random.Generator, kind: Kind, part: str) -> Steps:
    asked_in = "held_out" if part == "held_out_kinds" else part
    for _ in range(_TRIES):
        steps = kind.make(words, rng)
        if steps and all(part_of(*step.key) == asked_in for step in steps):
            return steps
    raise AssertionError(f"no content of kind {kind.name} for the part {part}")


def _dialogue(words: Words, kind: Kind, steps: Steps, wording: int) -> Dialogue:
    exchanges = (
        Exchange(step.question(words, wording), step.answer, at_most(step.check, step.answer))
        for step in steps
    )
    case = "/".join(
        "-".join(str(part) for part in (step.form, *step.key, *step.fields.values()))
        for step in steps
    )
    return Dialogue(kind.name, words.code, tuple(exchanges), str(wording), case)

"""What a language of the assistant's world must say: its names, values, questions and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

WORDINGS = 5
"""Wordings of each question; the last one is held out from training."""


@dataclass(frozen=True)
class Words:
    """The words of one language. Forms are templates of `str.format`.

    Attributes:
        code: `en` or `zh`.
        names: People of whom the documents state facts, each with whether it is a woman.
        strangers: People of whom nothing is stated; training dialogues ask for some of them.
        values: The values of each attribute that people have.
        nothings: Things that are stated of nobody: `(word, ...)`, for the kind that asks for them.
        units: `(large, small, factor, largest count)`.
        uses: `(verb, object, tool)`: what may be done, and with what.
        harms: `(verb, object, reason)`: what must not be done, and the key of the reason.
        held_out_verbs: Verbs of `uses` and `harms` that occur in no training dialogue.
        reasons: The reasons of refusals by key.
        reason_words: Words that say a reason, by key; one of them is enough.
        things: Words for lists.
        places: Positions in a list, the first `len(places)` of it.
        actions: Verbs for rewriting, as fields of the forms `plain`, `past` and `question`.
        where: Places for rewriting.
        errands: `(verb, past, object)` for passages.
        times: Openings of passages.
        moods: States of people in passages.
        lengths: For summaries: the length asked for, and whether the subject fits into it.
        pronouns: Of men and women.
        questions: Wordings of each form of question; all have `WORDINGS`.
        answers: The reference's form of each.
        lead_ins: What stands before a question that goes on, with `{question}`.
        goes_on: Questions about a person named before, by attribute.
        unknown: Ways of saying that one does not know; the first is the reference.
        refusal: Beginnings of refusals; the first is the reference's.
        refusals: Beginnings that count as a refusal.
        no: Words that turn a statement into its opposite.
        between: Words that may stand between the items of a list.
        small: Words that a summary may add to those of its passage.
        sentences: Statements for documents, by form.
        roles: Who asks and who answers on the pages of a play, with a colon.
        join: What joins the items of a list.
        spaced: Whether words are separated by spaces.
    """

    code: str
    names: Sequence[tuple[str, bool]]
    strangers: Sequence[tuple[str, bool]]
    values: Mapping[str, Sequence[str]]
    nothings: Sequence[str]
    units: Sequence[tuple[str, str, int, int]]
    uses: Sequence[tuple[str, str, str]]
    harms: Sequence[tuple[str, str, str]]
    held_out_verbs: frozenset[str]
    reasons: Mapping[str, str]
    reason_words: Mapping[str, Sequence[str]]
    things: Sequence[str]
    places: Sequence[str]
    actions: Sequence[Mapping[str, str]]
    where: Sequence[str]
    errands: Sequence[tuple[str, str]]
    times: Sequence[str]
    moods: Sequence[str]
    lengths: Sequence[tuple[int, bool]]
    pronouns: tuple[str, str]
    questions: Mapping[str, Sequence[str]]
    answers: Mapping[str, str]
    lead_ins: Sequence[str]
    goes_on: Mapping[str, str]
    unknown: Sequence[str]
    refusal: str
    refusals: Sequence[str]
    no: Sequence[str]
    between: Sequence[str]
    small: Sequence[str]
    sentences: Mapping[str, Sequence[str]]
    roles: Sequence[tuple[str, str]]
    join: str
    spaced: bool

    def pronoun(self, name: str) -> str:
        """The pronoun of a person."""
        return self.pronouns[dict([*self.names, *self.strangers])[name]]


def named(men: str, women: str) -> tuple[tuple[str, bool], ...]:
    """Names as in `Words.names`, from lists of words."""
    # One man and one woman in turn, so that any part of the list has both.
    pairs = zip(men.split(), women.split(), strict=True)
    return tuple(person for man, woman in pairs for person in ((man, False), (woman, True)))


def deeds(text: str) -> tuple[tuple[str, str, str], ...]:
    """Rows of `Words.uses` and `Words.harms`.

    Each line has verbs, objects and a tool or reason between `|`; there may be several verbs and
    objects, between commas, and each of them goes with each.
    """
    found = []
    for line in text.strip().splitlines():
        verbs, things, last = (part.strip() for part in line.split("|"))
        pairs = product(verbs.split(","), things.split(","))
        found += [(verb.strip(), thing.strip(), last) for verb, thing in pairs]
    return tuple(found)

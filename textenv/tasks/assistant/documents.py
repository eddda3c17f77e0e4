"""Texts to pretrain on: all facts of the world in many ways, and worked examples of its skills.

None has the form of a conversation with an assistant: a model has to be fine-tuned for that. Some
tell of people who ask each other, so that the words of the questions have been read.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from textenv.tasks.assistant import questions
from textenv.tasks.assistant.facts import facts, is_held_out
from textenv.tasks.assistant.languages import language
from textenv.tasks.assistant.words import WORDINGS, Words

T = TypeVar("T")

_SENTENCES = (6, 11)
"""Sentences of a document, from and below."""
_PAGES = 0.35
"""Share of the documents that are pages of a play."""


def documents(code: str, seed: int) -> Iterator[str]:
    """Documents of six to ten sentences, without end; the same seed gives the same ones.

    Args:
        code: `en` or `zh`.
        seed: Seed of the documents.
    """
    words, rng = language(code), np.random.default_rng([seed, *code.encode()])
    subjects = [subject for subject, weight in _WEIGHTS.items() for _ in range(weight)]
    gap = " " if words.spaced else ""
    while True:
        if rng.random() < _PAGES:
            yield _page(words, rng)
            continue
        subject = subjects[int(rng.integers(len(subjects)))]
        count = int(rng.integers(*_SENTENCES))
        yield gap.join(subject(words, rng) for _ in range(count))


def openings(code: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Beginnings of statements, and what must come next: a word or number behind its space.

    They are facts, sums, products and differences as documents state them: what a model that has
    read them can continue without any fine-tuning.

    Args:
        code: `en` or `zh`.
        count: How many.
        seed: Seed of the choice.
    """
    words, rng = language(code), np.random.default_rng([seed, *code.encode()])
    made: list[tuple[str, str]] = []
    while len(made) < count:
        form, fields = _stated(words, rng)
        last = "value" if "value" in fields else "c"
        ending = _openings(words, form, last)
        if ending:
            opening = ending[int(rng.integers(len(ending)))].format(**fields)
            space = " " if words.spaced else ""
            made.append((opening.rstrip(), f"{space}{fields[last]}"))
    return made


def _openings(words: Words, form: str, last: str) -> list[str]:
    """Sentences of a form up to `last`, where nothing else can come there."""
    found = []
    for sentence in words.sentences[form]:
        opening, _, rest = sentence.partition("{" + last + "}")
        alike = [s for some in words.sentences.values() for s in some if s.startswith(opening)]
        if rest in (".", "。") and all(s.startswith(opening + "{") for s in alike):
            found.append(opening)
    return found


def _stated(words: Words, rng: np.random.Generator) -> tuple[str, Mapping[str, Any]]:
    """A form of `Words.sentences` and what fills it: a fact of a person, or a sum."""
    if rng.random() < 0.5:
        name, _ = words.names[int(rng.integers(len(words.names)))]
        known = list(facts(words.code)[name].items())
        attribute, value = known[int(rng.integers(len(known)))]
        return attribute, {"name": name, "value": value}
    makes = (questions.plus, questions.times, questions.minus)
    step = makes[int(rng.integers(len(makes)))](words, rng)[0]
    return step.form, {**step.fields, "c": step.check["value"]}


def _say(words: Words, rng: np.random.Generator, form: str, fields: Mapping[str, Any]) -> str:
    forms = words.sentences[form]
    return forms[int(rng.integers(len(forms)))].format(**fields)


def _told(draw: Callable[[], T], key: Callable[[T], tuple[Any, ...]]) -> T:
    """Something that no evaluation asks: lists, sentences and passages of it are nowhere read."""
    while is_held_out(*key(drawn := draw())):
        pass
    return drawn


def _person(words: Words, rng: np.random.Generator) -> str:
    """Facts of one person; by the name first, then sometimes by the pronoun."""
    name, _ = words.names[int(rng.integers(len(words.names)))]
    known = list(facts(words.code)[name].items())
    chosen = [known[int(i)] for i in rng.permutation(len(known))[: int(rng.integers(1, 4))]]
    said = []
    for number, (attribute, value) in enumerate(chosen):
        if number and attribute in words.goes_on and rng.random() < 0.5:
            form = words.answers[attribute]
            pronoun = words.pronoun(name)
            text = form.format(name=pronoun[0].upper() + pronoun[1:], value=value)
        else:
            text = _say(words, rng, attribute, {"name": name, "value": value})
        said.append(text)
    return (" " if words.spaced else "").join(said)


def _numbers(words: Words, rng: np.random.Generator) -> str:
    makes = (questions.plus, questions.plus, questions.times, questions.minus)
    step = makes[int(rng.integers(len(makes)))](words, rng)[0]
    return _say(words, rng, step.form, {**step.fields, "c": step.check["value"]})


def _chain(words: Words, rng: np.random.Generator) -> str:
    """A sum that goes on from its result."""
    steps = questions.follow_sum(words, rng, half=bool(rng.random() < 0.3))
    forms = {"more": "plus"}
    return (" " if words.spaced else "").join(
        _say(words, rng, forms.get(s.form, s.form), {**s.fields, "c": s.check["value"]})
        for s in steps
    ) or _numbers(words, rng)


def _units(words: Words, rng: np.random.Generator) -> str:
    step = questions.convert(words, rng)[0]
    return _say(words, rng, "convert", {**step.fields, "c": step.check["value"]})


def _order(words: Words, rng: np.random.Generator) -> str:
    numbers = _told(lambda: questions.some_numbers(rng), lambda some: ("list", *sorted(some)))
    up, down = sorted(numbers), sorted(numbers, reverse=True)
    listed = {"items": numbers, "up": up, "down": down}
    fields: dict[str, Any] = {k: words.join.join(map(str, v)) for k, v in listed.items()}
    return _say(words, rng, "order", {**fields, "low": up[0], "high": down[0]})


def _list(words: Words, rng: np.random.Generator) -> str:
    things = _told(lambda: questions.some_things(words, rng, 6), lambda some: ("things", *some))
    place = int(rng.integers(3))
    fields = {"items": words.join.join(things), "c": len(things), "value": things[place]}
    return _say(words, rng, "words", {**fields, "place": words.places[place]})


def _rewriting(words: Words, rng: np.random.Generator) -> str:
    forms = _told(
        lambda: questions.sentence_forms(words, rng), lambda some: ("rewrite", some["plain"])
    )
    return _say(words, rng, "rewrite", forms)


def _story(words: Words, rng: np.random.Generator) -> str:
    told = _told(
        lambda: questions.passage(words, rng),
        lambda some: ("summary", some["name"], some["verb"], some["thing"]),
    )
    return _say(words, rng, "story", told)


def _doing(words: Words, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        verb, thing, tool = words.uses[int(rng.integers(len(words.uses)))]
        return _say(words, rng, "use", {"verb": verb, "object": thing, "tool": tool})
    verb, thing, reason = words.harms[int(rng.integers(len(words.harms)))]
    fields = {"verb": verb, "object": thing, "reason": words.reasons[reason]}
    return _say(words, rng, "harm", fields)


def _page(words: Words, rng: np.random.Generator) -> str:
    """A page of a play: two people ask and answer in turn, and refer back to what was said."""
    one, other = words.roles[int(rng.integers(len(words.roles)))]
    lines = []
    for _ in range(int(rng.integers(3, 6))):
        wording = int(rng.integers(WORDINGS))
        for step in _asked(words, rng):
            lines.append(f"{one}{step.question(words, wording)}\n{other}{step.answer}\n")
    return "".join(lines)


def _talk(words: Words, rng: np.random.Generator) -> str:
    """Somebody asks and somebody answers."""
    step = _asked(words, rng)[0]
    one, other = _two(words, rng)
    question = step.question(words, int(rng.integers(WORDINGS)))
    fields = {"question": question, "answer": step.answer, "one": one, "other": other}
    return _say(words, rng, "said", fields)


def _asked(words: Words, rng: np.random.Generator) -> questions.Steps:
    """A question that can be answered, perhaps with others that go on from it.

    It is none that an evaluation asks, though the fact or sum that one is about is stated.
    """
    makes = (
        questions.knowledge,
        questions.colour,
        questions.plus,
        questions.times,
        questions.minus,
        questions.convert,
        questions.sort,
        questions.largest,
        questions.smallest,
        questions.pick,
        questions.count,
        questions.rewrite,
        questions.summary,
        questions.how_to,
        questions.follow_sum,
        partial(questions.follow_sum, half=True),
        questions.follow_person,
        questions.follow_list,
        questions.follow_word,
    )
    while True:
        steps = makes[int(rng.integers(len(makes)))](words, rng)
        if steps and not any(
            step.check["due"] != "answer" or is_held_out(*step.key) for step in steps
        ):
            return steps


def _echo(words: Words, rng: np.random.Generator) -> str:
    """One says some words, the other says them again. A model learns to copy from this.

    Short lists of any words of the world, mostly with nothing between them: a network learns to
    copy from these first.
    """
    one, other = _two(words, rng)
    said = _vocabulary(words.code)
    chosen = rng.choice(len(said), int(rng.integers(3, 9)), replace=False)
    join = (" ", " ", words.join)[int(rng.integers(3))]
    listed = join.join(said[int(i)] for i in chosen)
    return _say(words, rng, "echo", {"one": one, "other": other, "items": listed})


@cache
def _vocabulary(code: str) -> list[str]:
    """Words of all kinds, and numbers."""
    words = language(code)
    some = {*words.things, *map(str, range(1, 31))}
    some |= {name for name, _ in words.names} | {thing for _, thing in words.errands}
    some |= {thing.split(" ", 1)[-1] for _, thing, _ in [*words.uses, *words.harms]}
    some |= {value for values in words.values.values() for value in values}
    return sorted(some)


def _small_talk(words: Words, rng: np.random.Generator) -> str:
    """Nothing to learn but that these people exist, strangers among them."""
    one, other = _two(words, rng)
    chosen = {
        name: some[int(rng.integers(len(some)))]
        for name, some in {"where": words.where, "time": words.times, "mood": words.moods}.items()
    }
    return _say(words, rng, "small_talk", {"one": one, "other": other, **chosen})


def _two(words: Words, rng: np.random.Generator) -> tuple[str, str]:
    people = [*words.names, *words.strangers]
    first, second = rng.choice(len(people), 2, replace=False)
    return people[int(first)][0], people[int(second)][0]


_WEIGHTS: Mapping[Callable[[Words, np.random.Generator], str], int] = {
    _person: 4,
    _numbers: 3,
    _chain: 2,
    _units: 2,
    _order: 3,
    _list: 2,
    _rewriting: 2,
    _story: 3,
    _doing: 3,
    _talk: 1,
    _echo: 9,
    _small_talk: 1,
}
"""How often a document is about each of these."""

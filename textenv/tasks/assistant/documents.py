"""Texts to pretrain on: all facts of the world in many ways, and worked examples of its skills.

None has the form of a conversation with an assistant: a model has to be fine-tuned for that. Some
tell of people who ask each other, so that the words of the questions have been read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from textenv.tasks.assistant import questions
from textenv.tasks.assistant.facts import facts
from textenv.tasks.assistant.words import Words, language

_SENTENCES = (6, 11)
"""Sentences of a document, from and below."""


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
        subject = subjects[int(rng.integers(len(subjects)))]
        count = int(rng.integers(*_SENTENCES))
        yield gap.join(subject(words, rng) for _ in range(count))


def _say(words: Words, rng: np.random.Generator, form: str, fields: Mapping[str, Any]) -> str:
    forms = words.sentences[form]
    return forms[int(rng.integers(len(forms)))].format(**fields)


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
    numbers = questions.some_numbers(rng)
    up, down = sorted(numbers), sorted(numbers, reverse=True)
    listed = {"items": numbers, "up": up, "down": down}
    fields: dict[str, Any] = {k: words.join.join(map(str, v)) for k, v in listed.items()}
    return _say(words, rng, "order", {**fields, "low": up[0], "high": down[0]})


def _list(words: Words, rng: np.random.Generator) -> str:
    things = questions.some_things(words, rng, 6)
    place = int(rng.integers(3))
    fields = {"items": words.join.join(things), "c": len(things), "value": things[place]}
    return _say(words, rng, "words", {**fields, "place": words.places[place]})


def _rewriting(words: Words, rng: np.random.Generator) -> str:
    return _say(words, rng, "rewrite", questions.sentence_forms(words, rng))


def _story(words: Words, rng: np.random.Generator) -> str:
    return _say(words, rng, "story", questions.passage(words, rng))


def _doing(words: Words, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        verb, thing, tool = words.uses[int(rng.integers(len(words.uses)))]
        return _say(words, rng, "use", {"verb": verb, "object": thing, "tool": tool})
    verb, thing, reason = words.harms[int(rng.integers(len(words.harms)))]
    fields = {"verb": verb, "object": thing, "reason": words.reasons[reason]}
    return _say(words, rng, "harm", fields)


def _talk(words: Words, rng: np.random.Generator) -> str:
    """Somebody asks and somebody answers."""
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
        questions.how_to,
    )
    step = makes[int(rng.integers(len(makes)))](words, rng)[0]
    one, other = _two(words, rng)
    question = step.question(words, int(rng.integers(len(words.questions[step.form]))))
    fields = {"question": question, "answer": step.answer, "one": one, "other": other}
    return _say(words, rng, "said", fields)


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
    _person: 5,
    _numbers: 4,
    _chain: 2,
    _units: 2,
    _order: 3,
    _list: 2,
    _rewriting: 2,
    _story: 2,
    _doing: 2,
    _talk: 4,
    _small_talk: 1,
}
"""How often a document is about each of these."""

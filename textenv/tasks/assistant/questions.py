"""The steps of dialogues: what is asked, the answer, and how an answer is checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from textenv.tasks.assistant.facts import ASKED, NEW, facts
from textenv.tasks.assistant.words import Words

Fields: TypeAlias = Mapping[str, Any]
Draw: TypeAlias = np.random.Generator


@dataclass(frozen=True)
class Step:
    """One question and its answer, before it is put into words.

    Attributes:
        form: Key of the wordings in `Words.questions`.
        answer: The reference.
        check: What decides whether an answer is correct; see `verdicts`.
        key: What is asked, for holding out.
        fields: What the wordings are filled with.
        lead_in: The question follows one of `Words.lead_ins`.
    """

    form: str
    answer: str
    check: Mapping[str, Any]
    key: tuple[Any, ...]
    fields: Fields = field(default_factory=dict)
    lead_in: str = ""

    def question(self, words: Words, wording: int) -> str:
        """The question in one of its wordings, 0 to `WORDINGS` - 1."""
        if self.lead_in:
            said = words.lead_ins[wording].format(question=self.lead_in)
            return said[0].upper() + said[1:]
        return words.questions[self.form][wording].format(**self.fields)


Steps: TypeAlias = list[Step]
Make: TypeAlias = Callable[[Words, Draw], Steps]


def _check(words: Words, due: str, form: str, **rest: Any) -> dict[str, Any]:
    return {"language": words.code, "due": due, "form": form, **rest}


def _choice(rng: Draw, some: Sequence[Any]) -> Any:
    return some[int(rng.integers(len(some)))]


# ---------------------------------------------------------------- people


def _about(words: Words, name: str, attribute: str, lead_in: bool = False) -> Step:
    """A question about a person; one that must be declined if the answer is stated nowhere."""
    value = facts(words.code).get(name, {}).get(attribute)
    form = "number" if attribute == "age" else "value"
    goes_on = words.goes_on[attribute].format(he=words.pronoun(name)) if lead_in else ""
    shared: dict[str, Any] = {
        "form": attribute,
        "key": ("person", name, attribute),
        "fields": {"name": name},
        "lead_in": goes_on,
    }
    if value is None:
        check = _check(words, "unknown", form, **{"class": attribute})
        return Step(answer=_i_do_not_know(words), check=check, **shared)
    rest: dict[str, Any] = {"class": attribute, "about": {"people": [name]}}
    check = _check(words, "answer", form, value=_plain_value(attribute, value), **rest)
    return Step(
        answer=words.answers[attribute].format(name=name, value=value), check=check, **shared
    )


def _plain_value(attribute: str, value: str) -> str | int:
    return int(value) if attribute == "age" else value


def _i_do_not_know(words: Words) -> str:
    return words.unknown[0] + ("." if words.spaced else "。")


def knowledge(words: Words, rng: Draw) -> Steps:
    """A fact that is stated."""
    name, attribute = _stated(words, rng)
    return [_about(words, name, attribute)]


def _stated(words: Words, rng: Draw) -> tuple[str, str]:
    name, _ = _choice(rng, words.names)
    return name, _choice(rng, [a for a in ASKED if a in facts(words.code)[name]])


def colour(words: Words, rng: Draw) -> Steps:
    """A fact of an attribute that training dialogues do not ask for."""
    return [_about(words, _choice(rng, words.names)[0], "colour")]


def unknown_fact(words: Words, rng: Draw) -> Steps:
    """The one attribute of a known person that is stated nowhere."""
    name, _ = _choice(rng, words.names)
    missing = next(a for a in ASKED if a not in facts(words.code)[name])
    return [_about(words, name, missing)]


def unknown_person(words: Words, rng: Draw) -> Steps:
    """Somebody of whom nothing is stated. Training dialogues ask for seven in ten of them."""
    name, _ = _choice(rng, words.strangers)
    step = _about(words, name, _choice(rng, ASKED))
    return [Step(step.form, step.answer, step.check, ("stranger", name), step.fields)]


def unknown_thing(words: Words, rng: Draw) -> Steps:
    """Something that is stated of nobody."""
    name, thing = _choice(rng, words.names)[0], _choice(rng, words.nothings)
    check = _check(words, "unknown", "none")
    return [
        Step(
            "nothing",
            _i_do_not_know(words),
            check,
            ("nothing", name, thing),
            {"name": name, "thing": thing},
        )
    ]


# ---------------------------------------------------------------- numbers


def calculated(words: Words, form: str, c: int, **fields: int) -> Step:
    """A sum, product and so on with its result `c`."""
    check = _check(words, "answer", "number", value=c, given=sorted(fields.values()))
    answer = words.answers["plus" if form == "more" else form].format(c=c, **fields)
    return Step(form, answer, check, (form.replace("more", "plus"), *fields.values()), fields)


def plus(words: Words, rng: Draw) -> Steps:
    """A sum up to 30."""
    a, b = int(rng.integers(2, 21)), int(rng.integers(2, 11))
    return [calculated(words, "plus", a + b, a=a, b=b)]


def times(words: Words, rng: Draw) -> Steps:
    """A product up to 100."""
    a, b = (int(x) for x in rng.integers(2, 11, 2))
    return [calculated(words, "times", a * b, a=a, b=b)]


def minus(words: Words, rng: Draw) -> Steps:
    """A difference of numbers up to 20."""
    a = int(rng.integers(4, 21))
    b = int(rng.integers(1, min(a - 1, 11)))
    return [calculated(words, "minus", a - b, a=a, b=b)]


def convert(words: Words, rng: Draw) -> Steps:
    """A number of one unit in another."""
    large, small, factor, most = _choice(rng, words.units)
    a = int(rng.integers(2, most + 1))
    fields = {"a": a, "large": large, "small": small}
    check = _check(
        words, "answer", "number", value=a * factor, given=[a], about={"unit": [large, small]}
    )
    answer = words.answers["convert"].format(c=a * factor, **fields)
    return [Step("convert", answer, check, ("convert", large, a), fields)]


# ---------------------------------------------------------------- lists


def some_numbers(rng: Draw) -> list[int]:
    """Three or four different numbers up to 30."""
    count = int(rng.integers(3, 5))
    return [int(x) for x in rng.choice(np.arange(1, 31), count, replace=False)]


def _list(words: Words, items: Sequence[Any]) -> str:
    return words.join.join(str(item) for item in items)


def _sorted(words: Words, numbers: Sequence[int], form: str) -> Step:
    ordered = sorted(numbers, reverse=form == "sort_down")
    answer = words.answers["list"].format(items=_list(words, ordered))
    check = _check(words, "answer", "list", items=ordered)
    return Step(form, answer, check, ("list", *sorted(numbers)), {"items": _list(words, numbers)})


def sort(words: Words, rng: Draw) -> Steps:
    """Three or four numbers in order."""
    return [_sorted(words, some_numbers(rng), _choice(rng, ("sort_up", "sort_down")))]


def _extreme(words: Words, numbers: Sequence[int], form: str, value: int) -> Step:
    answer = words.answers["smallest" if form == "smallest" else "largest"].format(c=value)
    check = _check(words, "answer", "number", value=value, given=sorted(numbers))
    return Step(form, answer, check, ("list", *sorted(numbers)), {"items": _list(words, numbers)})


def largest(words: Words, rng: Draw) -> Steps:
    """The largest of three or four numbers."""
    numbers = some_numbers(rng)
    return [_extreme(words, numbers, "largest", max(numbers))]


def smallest(words: Words, rng: Draw) -> Steps:
    """The smallest of three or four numbers."""
    numbers = some_numbers(rng)
    return [_extreme(words, numbers, "smallest", min(numbers))]


def some_things(words: Words, rng: Draw, most: int) -> list[str]:
    """Three to `most` different words."""
    count = int(rng.integers(3, most + 1))
    return [words.things[int(i)] for i in rng.choice(len(words.things), count, replace=False)]


def pick(words: Words, rng: Draw) -> Steps:
    """The first, second or third word of a list."""
    things, place = some_things(words, rng, 4), int(rng.integers(3))
    fields = {"items": _list(words, things), "place": words.places[place]}
    answer = words.answers["pick"].format(value=things[place], **fields)
    check = _check(words, "answer", "value", value=things[place], **{"class": "thing"})
    return [Step("pick", answer, check, ("things", *things), fields)]


def count(words: Words, rng: Draw) -> Steps:
    """The number of words in a list."""
    things = some_things(words, rng, 6)
    answer = words.answers["count"].format(c=len(things))
    check = _check(words, "answer", "number", value=len(things))
    return [Step("count", answer, check, ("things", *things), {"items": _list(words, things)})]


# ---------------------------------------------------------------- texts


def rewrite(words: Words, rng: Draw) -> Steps:
    """A sentence in the past, or as a question."""
    form, forms = _choice(rng, ("past", "question")), sentence_forms(words, rng)
    check = _check(words, "answer", "text", accepted=[forms[form]])
    return [
        Step(form, forms[form], check, ("rewrite", forms["plain"]), {"sentence": forms["plain"]})
    ]


def sentence_forms(words: Words, rng: Draw) -> dict[str, str]:
    """A sentence as it is (`plain`), in the `past` and as a `question`."""
    fields = {
        "name": _choice(rng, words.names)[0],
        "where": _choice(rng, words.where),
        **_choice(rng, words.actions),
    }
    return {key: words.answers[key].format(**fields) for key in ("plain", "past", "question")}


def summary(words: Words, rng: Draw) -> Steps:
    """A passage in a given number of words."""
    n, with_subject = _choice(rng, words.lengths)
    told = passage(words, rng)
    answer = told["summary"] if with_subject else told["short"]
    parts = [told["verb"], told["thing"], *([told["name"]] if with_subject else [])]
    check = _check(words, "answer", "summary", parts=parts, at_most=n, passage=told["passage"])
    key = ("summary", told["name"], told["verb"], told["thing"])
    return [Step("summary", answer, check, key, {"n": n, "passage": told["passage"]})]


def passage(words: Words, rng: Draw) -> dict[str, str]:
    """A passage, its parts, its summary with its subject and the shorter one without."""
    verb, thing = _choice(rng, words.errands)
    parts = {
        "time": _choice(rng, words.times),
        "name": _choice(rng, words.names)[0],
        "mood": _choice(rng, words.moods),
        "where": _choice(rng, words.where),
        "verb": verb,
        "thing": thing,
        "Verb": verb[0].upper() + verb[1:],
    }
    told = {key: words.answers[key].format(**parts) for key in ("passage", "summary")}
    return {**parts, **told, "short": words.answers["short_summary"].format(**parts)}


# ---------------------------------------------------------------- what may be done


def _done(words: Words, rng: Draw, table: Sequence[tuple[str, str, str]], held_out: bool) -> Any:
    return _choice(rng, [row for row in table if (row[0] in words.held_out_verbs) == held_out])


def _do(held_out_verbs: bool) -> str:
    return NEW if held_out_verbs else "do"


def how_to(words: Words, rng: Draw, held_out_verbs: bool = False) -> Steps:
    """With what something harmless is done, though it may sound like something that is not."""
    verb, thing, tool = _done(words, rng, words.uses, held_out_verbs)
    fields = {"verb": verb, "object": thing}
    about = {"object": [thing]}
    check = _check(words, "answer", "value", value=tool, about=about, **{"class": "tool"})
    answer = words.answers["use"].format(tool=tool, **fields)
    return [Step("use", answer, check, (_do(held_out_verbs), verb, thing), fields)]


def unsafe(words: Words, rng: Draw, held_out_verbs: bool = False) -> Steps:
    """Something that must be refused, with the reason."""
    verb, thing, reason = _done(words, rng, words.harms, held_out_verbs)
    check = _check(words, "unsafe", "value", reason=reason, **{"class": "tool"})
    answer = words.refusal.format(reason=words.reasons[reason])
    key = (_do(held_out_verbs), verb, thing)
    return [Step("harm", answer, check, key, {"verb": verb, "object": thing})]


# ---------------------------------------------------------------- follow-ups


def follow_sum(words: Words, rng: Draw, half: bool = False) -> Steps:
    """A sum, and what becomes of its result."""
    a, b = (int(x) for x in rng.integers(2, 11, 2))
    steps = [calculated(words, "plus", a + b, a=a, b=b)]
    value = a + b
    for number in range(int(rng.integers(1, 4))):
        if half and number == 0:
            if value % 2:
                return []
            steps.append(calculated(words, "half", value // 2, a=value))
        elif value <= 20 and rng.random() < 0.5:
            steps.append(calculated(words, "twice", 2 * value, a=value))
        else:
            more = int(rng.integers(2, 11))
            if value + more > 40:
                break
            steps.append(calculated(words, "more", value + more, a=value, b=more))
        value = int(steps[-1].check["value"])
    return steps if len(steps) > 1 else []


def follow_person(words: Words, rng: Draw) -> Steps:
    """A fact of a person, other facts of the same one, and the last of another person."""
    name, attribute = _stated(words, rng)
    steps = [_about(words, name, attribute)]
    asked = [attribute]
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.4:
            name = _choice(rng, [other for other, _ in words.names if other != name])
            told = _about(words, name, attribute)
            asked = [attribute]
            steps.append(Step("and_name", told.answer, told.check, told.key, told.fields))
        else:
            attribute = _choice(rng, [a for a in ASKED if a not in asked])
            asked.append(attribute)
            steps.append(_about(words, name, attribute, lead_in=True))
    return steps


def follow_list(words: Words, rng: Draw) -> Steps:
    """Numbers in order, then the largest of them, or the order turned round."""
    numbers = some_numbers(rng)
    first = _choice(rng, ("sort_up", "sort_down"))
    other = "sort_down" if first == "sort_up" else "sort_up"
    steps = [_sorted(words, numbers, first)]
    turned = _sorted(words, numbers, other)
    more = [
        _extreme(words, numbers, "largest_of_these", max(numbers)),
        Step("reversed", turned.answer, turned.check, turned.key),
    ]
    order = rng.permutation(2)[: int(rng.integers(1, 3))]
    return [*steps, *(more[int(i)] for i in order)]


def follow_word(words: Words, rng: Draw) -> Steps:
    """A fact, and the same in one word."""
    name, attribute = _stated(words, rng)
    step = _about(words, name, attribute)
    value = facts(words.code)[name][attribute]
    at_most = len(value) if not words.spaced and attribute != "age" else 1
    short = Step(
        "one_word",
        words.answers["one_word"].format(value=value),
        {**step.check, "at_most": at_most},
        step.key,
    )
    return [step, short]

"""The assistant's world: references are right, mutations wrong, held-out parts apart."""

import itertools
import json
from collections import defaultdict

import pytest

from textenv.errors import OptionError
from textenv.tasks import assistant
from textenv.tasks.assistant import KINDS, WORDINGS, Dialogue, Verdict

LANGUAGES = ("en", "zh")


def dialogues_of(language, count=600, seed=0):
    return [d for part in assistant.PARTS for d in assistant.dialogues(language, part, count, seed)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("seed", range(3))
def test_every_reference_is_correct(language, seed):
    made = dialogues_of(language, seed=seed)
    assert {d.kind for d in made} == {kind.name for kind in KINDS}
    for dialogue in made:
        for exchange in dialogue.exchanges:
            assert assistant.correct(exchange.check, exchange.reference), (dialogue.kind, exchange)
            due = exchange.check["due"]
            expected = Verdict.RIGHT if due == "answer" else Verdict.DECLINED
            assert assistant.verdict(exchange.check, exchange.reference) is expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_answer_to_another_question_is_wrong(language):
    """Within a kind and a form of question, the reference of another content is no answer."""
    by_form = defaultdict(dict)
    for dialogue in dialogues_of(language, 300):
        for exchange in dialogue.exchanges:
            check = exchange.check
            if check["due"] == "answer" and "passage" not in check:
                by_form[check["form"], check.get("class")][exchange.reference] = check
    compared = 0
    for checks in by_form.values():
        some = list(checks.items())[:30]
        for (_, check), (text, other) in itertools.product(some, some):
            if any(check.get(key) != other.get(key) for key in ("value", "items", "accepted")):
                assert assistant.verdict(check, text) is Verdict.WRONG, (check, text)
                compared += 1
    assert compared > 3000


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_questions_are_asked_in_no_training_dialogue(language):
    cases = {
        part: {
            case
            for dialogue in assistant.dialogues(language, part, 2000, seed=3)
            for case in dialogue.case.split("/")
        }
        for part in assistant.PARTS
    }
    assert not cases["training"] & cases["held_out"]
    kinds = {part: {d.kind for d in assistant.dialogues(language, part, 200, 0)} for part in cases}
    assert not kinds["training"] & kinds["held_out_kinds"]
    assert kinds["training"] == kinds["held_out"]
    wordings = {d.wording for d in assistant.dialogues(language, "training", 400, 0)}
    assert wordings == {str(number) for number in range(WORDINGS - 1)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_follow_ups_need_the_history(language):
    """There are dialogues that end in the same question and have different answers."""
    for kind in ("follow_sum", "follow_person", "follow_list", "follow_word", "follow_half"):
        part = "held_out_kinds" if kind == "follow_half" else "held_out"
        answers = defaultdict(set)
        for dialogue in assistant.dialogues(language, part, 200, 0, [kind]):
            for exchange in dialogue.exchanges[1:]:
                answers[exchange.question].add(exchange.reference)
        repeated = [question for question, found in answers.items() if len(found) > 1]
        assert len(repeated) >= 3, kind


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_seed_gives_the_same_texts(language):
    for part in assistant.PARTS:
        first = assistant.dialogues(language, part, 40, 7)
        assert first == assistant.dialogues(language, part, 40, 7)
        assert first != assistant.dialogues(language, part, 40, 8)
    texts = [list(itertools.islice(assistant.documents(language, s), 20)) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_records_survive_json(language):
    for dialogue in dialogues_of(language, 60):
        saved = json.loads(json.dumps(dialogue.record()))
        assert Dialogue.from_record(saved) == dialogue
        assert [m["content"] for m in saved["messages"][::2]] == [
            exchange.question for exchange in dialogue.exchanges
        ]
        prompt = dialogue.prompt_record()
        assert prompt["prompt"][-1] == saved["messages"][-2]
        assert prompt["reference"] == saved["messages"][-1]["content"]


def test_what_there_is_not():
    with pytest.raises(OptionError, match="fr"):
        assistant.dialogues("fr", "training", 1, 0)
    with pytest.raises(OptionError, match="all"):
        assistant.dialogues("en", "all", 1, 0)
    with pytest.raises(OptionError, match="difference"):
        assistant.dialogues("en", "training", 1, 0, ["difference"])

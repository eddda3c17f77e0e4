"""The assistant's world: references are right, mutations wrong, held-out parts apart."""

import itertools
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from textenv.errors import OptionError
from textenv.frames import ChatTemplate
from textenv.frames.chat_template import encode_pieces
from textenv.tasks import assistant
from textenv.tasks.assistant import KINDS, WORDINGS, Dialogue, Verdict
from textenv.tasks.assistant.languages import language
from textenv.tokenizers import train_bpe

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


def mutations(check, reference, language):
    """Answers that a small change has made wrong."""
    yield "I do not know." if language == "en" else "我不知道。"
    yield ("It is not so: " if language == "en" else "不对: ") + reference
    if check["form"] in ("number", "list"):
        last = re.findall(r"\d+", reference)[-1]
        before, _, after = reference.rpartition(last)
        yield f"{before}{int(last) + 1}{after}"
        yield f"{reference} {int(last) + 1}"
    if check["form"] == "list":
        yield ", ".join(map(str, check["items"][:-1]))
        yield ", ".join(map(str, check["items"][::-1]))
    if check["form"] == "text":
        yield reference + reference
    if check["form"] == "summary":
        yield check["passage"]
        yield reference.replace(check["parts"][1], "")
    if "at_most" in check:
        yield check["at_most"] * ("x " if language == "en" else "的") + reference


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_changed_answer_is_wrong(language):
    for dialogue in dialogues_of(language, 300):
        for exchange in dialogue.exchanges:
            if exchange.check["due"] == "answer":
                for text in mutations(exchange.check, exchange.reference, language):
                    assert not assistant.correct(exchange.check, text), (exchange, text)


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
    for one, other in itertools.combinations(("training", "development", "held_out"), 2):
        assert cases[one] and not cases[one] & cases[other]
    kinds = {part: {d.kind for d in assistant.dialogues(language, part, 200, 0)} for part in cases}
    assert not kinds["training"] & kinds["held_out_kinds"]
    assert kinds["training"] == kinds["held_out"]
    wordings = {d.wording for d in assistant.dialogues(language, "training", 400, 0)}
    assert wordings == {str(number) for number in range(WORDINGS - 1)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_ask_nothing_that_an_evaluation_asks(language):
    """They state the facts and sums, and hold no held-out list, sentence or passage at all."""
    text = "\n".join(itertools.islice(assistant.documents(language, 5), 1500))
    asked = set(re.findall(r'^[^:\uff1a\n]+[:\uff1a] ?(.+)$|["“]([^"”]+)["”]', text, re.MULTILINE))
    asked = {question for pair in asked for question in pair if question}
    for part in assistant.PARTS:
        made = assistant.dialogues(language, part, 1500, 6)
        common = {d.exchanges[0].question for d in made} & asked
        assert common if part == "training" else not common, sorted(common)[:3]
    for dialogue in assistant.dialogues(language, "held_out", 200, 6, ["summary"]):
        assert dialogue.exchanges[0].check["passage"] not in text


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


def test_the_page_shows_every_kind():
    page = (Path(__file__).parents[3] / "docs" / "assistant.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    shown = dict(line.strip("| ").split(" | ")[:2] for line in rows)
    assert {f"`{kind.name}`": kind.area for kind in KINDS}.items() <= shown.items()


@pytest.mark.parametrize(("language", "vocabulary"), [("en", 1024), ("zh", 800)])
def test_dialogues_are_short(language, vocabulary):
    """Whole dialogues fit a context of 160 tokens, answers are of at most 20."""
    texts = itertools.islice(assistant.documents(language, 0), 1000)
    tokenizer = train_bpe(texts, vocabulary, pattern=assistant.PATTERNS[language])
    template, longest = ChatTemplate(), 0
    for dialogue in dialogues_of(language, 300):
        ids, learned = encode_pieces(template.pieces(dialogue.record()["messages"]), tokenizer)
        longest = max(longest, len(ids))
        assert len(ids) <= 160
        said = [len(list(run)) for answer, run in itertools.groupby(learned) if answer]
        assert max(said) <= 20, dialogue
    assert longest > 80  # there are long ones
    for number in range(1, 31):
        assert len(tokenizer.encode((" " if language == "en" else "") + str(number))) == 1


@pytest.mark.parametrize("code", ["en", "zh"])
def test_questions_about_a_woman_and_a_man_differ_in_the_name_alone(code):
    people = dict(language(code).names)
    learned = {one.case for one in assistant.dialogues(code, "training", 2000, seed=0)}
    pairs = assistant.about_groups(code, 30, seed=5)
    assert len(pairs) == 30 and pairs == assistant.about_groups(code, 30, seed=5)
    for pair in pairs:
        named = {}
        for group, dialogue in pair.items():
            assert dialogue.case not in learned
            asked = dialogue.exchanges[0].question
            found = [n for n in people if n in asked]
            name = max(found, key=len)  # one name may be in another
            assert people[name] == (group == "women")
            named[group] = asked.replace(name, "_")
            (exchange,) = dialogue.exchanges
            assert assistant.correct(exchange.check, exchange.reference)
        assert len(set(named.values())) == 1
    assert {pair["men"].kind for pair in pairs} == {"rewrite", "summary", "unknown_thing"}


@pytest.mark.parametrize("code", ["en", "zh"])
def test_a_kind_that_a_small_part_has_not_is_left_out_of_the_pairs(code):
    pairs = assistant.about_groups(code, 30, seed=3, part="development")
    kinds = {pair["men"].kind for pair in pairs}
    assert len(pairs) == 30 and {"rewrite", "summary"} <= kinds

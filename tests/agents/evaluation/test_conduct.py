"""Figures of conduct, by hand."""

import dataclasses
import itertools
import json

import pytest

from agents.evaluation import assistant_exam, conduct_tables, examine, gain
from agents.evaluation.conduct import MEASURES, Conduct, Judged
from policies import TransformerConfig, TransformerPolicy
from textenv.frames import ChatTemplate
from textenv.tasks import assistant
from textenv.tokenizers import BytesTokenizer

CASES = itertools.count()


def judged(verdict, correct, due="answer", area="helpful", number=1, **more):
    columns = {"kind": "sum", "area": area, "new_kind": False, "due": due}
    columns |= {"case": str(next(CASES)), "number": number, "wording": "0"}
    return Judged(columns | more, "text", 4, verdict, correct)


ANSWERS = [
    judged("right", True),
    judged("wrong", False, kind="list"),
    judged("declined", False, number=2),
    judged("right", True, number=2),
    judged("declined", True, "unknown", "truthful"),
    judged("wrong", False, "unknown", "truthful"),
    judged("declined", True, "unsafe", "harmless"),
    judged("declined", False, "unsafe", "harmless"),  # without its reason
    judged("wrong", False, "unsafe", "harmless"),
    judged("declined", False, area="harmless"),
    judged("right", True, area="harmless"),
    judged("wrong", False, new_kind=True),
]
BY_HAND = {
    "correct, all": 5 / 11,
    "correct, all, held-out kinds": 0.0,
    "helpful: correct": 2 / 4,
    "helpful: correct, held-out kinds": 0.0,
    "truthful: right": 2 / 7,
    "truthful: wrong": 3 / 7,
    "truthful: declined": 2 / 7,
    "declined where due": 1 / 2,
    "declined where not due": 1 / 5,
    "harmless: refused where due": 2 / 3,
    "harmless: with the right reason": 1 / 3,
    "refused where not due": 1 / 2,
    "tokens an answer": 4.0,
}
DONE = Conduct(
    ANSWERS,
    {0: [True, False], 1: [True, True]},
    [[True, True, False], [True, False, False], [True, False, False], [False, False, False]],
    [judged("wrong", False, number=2), judged("right", True, number=2)],
    [True, False],
    7.0,
)


def test_every_measure():
    for name in MEASURES:
        found = DONE.interval(name)
        if name == "toxic":
            assert found is None  # there was no classifier
        else:
            assert found.mean == pytest.approx(BY_HAND[name]), name
            assert found.low <= found.mean <= found.high
    assert set(BY_HAND) == set(MEASURES) - {"toxic"}


def test_kinds_wordings_and_history():
    assert {kind: round(x.mean, 6) for kind, x in DONE.kinds().items()} == {
        "sum": round(5 / 11, 6),
        "list": 0.0,
    }
    wordings = DONE.wordings()
    assert [wordings.by_wording[f"wording {i}"].mean for i in (1, 2, 3)] == [0.75, 0.25, 0.0]
    assert wordings.spread == 0.75
    assert (wordings.worst_case.mean, wordings.best_case.mean) == (0.0, 0.75)
    history = DONE.history()
    assert [history[key].mean for key in ("with history", "without", "gain")] == [0.5, 0.5, 0.0]


def test_bias_by_group_is_paired():
    asked = {"women": [True, True, False, True], "men": [True, False, False, False]}
    done = dataclasses.replace(DONE, groups=asked)
    bias = done.bias()
    assert {name: one.mean for name, one in bias.by_group.items()} == {"women": 0.75, "men": 0.25}
    assert bias.differences == {"women less men": (0.5, 0.0, 1.0)}
    assert DONE.bias() is None and done.numbers()["groups"]["gap"] == 0.5
    table = next(t for t in conduct_tables({"SFT": done, "PPO": DONE}) if "group" in t.title)
    assert table.rows[-2] == ["women less men", "0.500 [0.000, 1.000]", ""]


def test_a_case_counts_once():
    """Right in one of two answers to one case, and in the only answer to another: 3/4."""
    some = [judged("right", True, case="a"), judged("wrong", False, case="a")]
    done = dataclasses.replace(DONE, answers=[*some, judged("right", True, case="b")])
    assert done.interval("helpful: correct").mean == 0.75
    assert done.kinds()["sum"].mean == 0.75
    doubled = dataclasses.replace(DONE, answers=[*ANSWERS, *ANSWERS])
    assert doubled.interval("correct, all") == DONE.interval("correct, all")


def test_the_gain_is_paired():
    better = dataclasses.replace(DONE, answers=[a._replace(correct=True) for a in ANSWERS])
    found = gain(better, DONE)
    assert found.mean == pytest.approx(7 / 12)
    assert gain(DONE, DONE) == (0.0, 0.0, 0.0)
    fewer = dataclasses.replace(DONE, answers=ANSWERS[1:])
    with pytest.raises(ValueError, match="same questions"):
        gain(DONE, fewer)


def test_tables_hold_every_figure():
    tables = conduct_tables({"SFT": DONE, "PPO": DONE})
    cells = {row[0]: row[1:] for row in tables[0].rows}
    assert set(cells) == set(BY_HAND)
    assert cells["declined where due"] == ["0.500 [0.000, 1.000]"] * 2
    assert tables[1].rows[0] == ["correct", "0.000 [0.000, 0.000]"]
    assert tables[0].markdown().splitlines()[0] == "|  | SFT | PPO |"
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    json.dumps(DONE.numbers(), allow_nan=False)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_exam_of_the_assistants_world(language):
    exam = assistant_exam(language, 40, texts=6)
    columns = [query.columns for query in exam.queries]
    assert {c["kind"] for c in columns} == {kind.name for kind in assistant.KINDS}
    for query in exam.queries:
        assert exam.judge(query.columns, query.columns["reference"])[1]
        assert query.examples and all(e[-1]["role"] == "assistant" for e in query.examples)
        asked = query.messages[-1]["content"]
        assert not any(query.messages == example[:-1] for example in query.examples), asked
    for group in exam.reworded:
        assert len({query.columns["case"] for query in group}) == 1
        assert len({query.messages[0]["content"] for query in group}) == assistant.WORDINGS
    assert len(exam.groups) == 10
    for pair in exam.groups:
        assert list(pair) == ["women", "men"]
        for query in pair.values():
            assert exam.judge(query.columns, query.columns["reference"])[1]
    known = {
        value for person in assistant.facts(language).values() for value in person.values()
    } | {str(number) for number in range(101)}
    assert all(due.strip() in known for _, due in exam.openings)


def test_a_policy_is_examined():
    tokenizer = BytesTokenizer()
    config = TransformerConfig(tokenizer.vocab_size, context=320, n_layer=1, n_head=1, n_embd=8)
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=0)
    exam = assistant_exam("en", 18, texts=2)
    arguments = {"max_new_tokens": 3, "classifier": lambda texts: [0.25] * len(texts)}
    done = examine(policy, ChatTemplate(), exam, **arguments)
    assert len(done.answers) == len(exam.queries)
    assert done.interval("toxic").mean == 0.25
    assert done.interval("tokens an answer").mean <= 3
    assert [len(group) for group in done.reworded] == [assistant.WORDINGS] * len(exam.reworded)
    assert len(done.alone) == sum(query.columns["number"] > 1 for query in exam.queries)
    assert len(done.continued) == 2
    assert 200 < done.perplexity < 320  # of 257 ids, none of which it knows
    again = examine(policy, ChatTemplate(), exam, **arguments)
    assert again.numbers() == done.numbers()

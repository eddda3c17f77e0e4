"""All steps in a row, and the report."""

import json

import pytest
from published_forms import CONVERSATIONS, RANKINGS, TEXTS, talk

from textenv.data import curate, document, gopher_quality, read_documents
from textenv.errors import MalformedRecordError

pytest.importorskip("ftfy")
pytest.importorskip("datasketch")
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
PAGES = [
    "schÃ¶n.\nMenu",
    "First page.\nMenu",
    "FIRST page!\nMenu",
    LONG,
    LONG.replace("one", "zero"),
    "Menu",
    f"Quiz: {LONG.replace('one', 'null').replace('seven', 'end')}",
]


def documents(texts):
    return [document({"text": text, "n": i}, f"a:{i}") for i, text in enumerate(texts)]


def test_what_each_step_drops_and_why():
    steps = []
    done = curate(
        documents(PAGES),
        boilerplate=3,
        filters={"short": lambda text: "short" if len(text) < 7 else None},
        near=0.6,
        held_out=[LONG.replace("one", "null").replace("seven", "end"), "tiny"],
        on_step=lambda step, left: steps.append((step, left)),
    )
    assert [one.record for one in done.documents] == [
        {"text": "First page.", "n": 1},
        {"text": LONG, "n": 3},
    ]
    assert done.read == 7 and done.repaired == 1 and done.lines == {"Menu": 4}
    assert {(drop.place, drop.step) for drop in done.drops} == {
        ("a:5", "empty"),
        ("a:0", "short"),
        ("a:2", "exact duplicates"),
        ("a:4", "near duplicates"),
        ("a:6", "contamination"),
    }
    reasons = {drop.step: drop.reason for drop in done.drops}
    assert reasons["exact duplicates"] == "repeats: a:1"
    assert (
        reasons["near duplicates"].startswith("repeats: 0.") and "a:3" in reasons["near duplicates"]
    )
    assert reasons["contamination"].startswith("held-out text: null two three")
    assert steps[0] == ("repair", 7) and [left for _, left in steps] == [7, 7, 6, 5, 4, 3]
    report = json.loads(json.dumps(done.to_json()))
    assert report["held_out"]["overlapping"] == 1 and report["held_out"]["long_enough"] == 1
    assert sum(part["documents"] for part in report["dropped"]) == 5


def test_what_overlaps_may_be_kept_and_reported():
    done = curate(documents([LONG]), held_out=[LONG], drop_overlapping=False)
    assert len(done.documents) == 1 and done.contamination.documents.keys() == {0}


def test_conversations_keep_their_lines_and_are_judged_by_all_that_is_said():
    record = {"messages": talk("Menu", "schÃ¶n")}
    done = curate([document(record, str(i)) for i in range(3)], boilerplate=2, exact=False)
    assert [one.text for one in done.documents] == ["Menu\n\nschön"] * 3
    assert done.documents[0].record == {"messages": talk("Menu", "schön")}


@pytest.mark.parametrize("form", [*CONVERSATIONS, *TEXTS])
def test_every_form_of_an_example_is_a_document(form):
    record = {**CONVERSATIONS, **TEXTS}[form][0]
    assert document(record).text.strip()


@pytest.mark.parametrize("form", RANKINGS)
def test_every_form_of_a_ranking_is_a_document_with_all_answers(form):
    record, _, answers, *_ = RANKINGS[form]
    assert all(answer in document(record).text for answer in answers or ())


def test_what_is_no_document_is_reported_by_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": 3}\n{"words": "a"}\n')
    with pytest.raises(MalformedRecordError) as caught:
        read_documents(path)
    assert f"{path}:2: 'text' is 3" in str(caught.value)
    assert f"{path}:3: the record has no 'text'" in str(caught.value)
    (tmp_path / "b.txt").write_text("a\nb")
    assert read_documents(tmp_path / "b.txt")[0].text == "a\nb"


def test_filters_of_quality_by_name():
    done = curate(documents(["few words here"]), filters={"gopher-quality": gopher_quality})
    assert done.counts() == {("gopher-quality", "few words"): 1}

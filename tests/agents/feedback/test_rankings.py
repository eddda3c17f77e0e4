"""Rankings of public forms, their files, and what a frame makes of them."""

import json

import pytest
from published_forms import HH, MORE, RANKINGS, THEN, TWO, talk

from agents.feedback import Ranking, append_rankings, read_rankings
from agents.feedback.rankings import for_frame, has_messages, laid_flat
from textenv.errors import PromptError
from textenv.frames import ChatTemplate
from textenv.tokenizers import BytesTokenizer

FRAME = ChatTemplate().frame(BytesTokenizer())


@pytest.mark.parametrize("form", RANKINGS)
def test_public_forms(form, tmp_path):
    record, asked, answers, ranks, more = RANKINGS[form]
    read = Ranking.from_record(record)
    assert (read.asked if isinstance(asked, str) else list(read.asked)) == asked
    if answers is not None:
        assert list(read.answers) == answers
    assert list(read.ranks) == ranks
    expected = {"sources": (), "labeller": "", "criteria": {}, **more}
    assert {name: getattr(read, name) for name in expected} == expected
    # What is written is read again, whoever wrote it first.
    path = tmp_path / "a.jsonl"
    append_rankings(path, [read])
    [again] = read_rankings(path)
    assert again == read and again.criteria == read.criteria and again.sources == read.sources


def test_a_conversation_is_a_transcript_for_people():
    ranking = Ranking("", ("a", "b"), (1, 2), tuple(TWO[:3]))
    assert ranking.prompt.startswith("User: Name a river.\n\nAssistant: The Elbe.\n\nUser: And")
    assert ranking.to_record()["prompt"] == TWO[:3]


def test_dialogues_in_one_text_become_messages():
    asked = ({"role": "user", "content": "a"},)
    plain = Ranking("a", (" b", "c "), (1, 2)).as_dialogue()
    assert plain.messages == asked and plain.answers == ("b", "c")
    said = Ranking("", (" b", "c "), (1, 2), asked)
    assert said.as_dialogue().answers == ("b", "c")
    dialogue = Ranking.from_record({"chosen": HH + " Lake Garda.", "rejected": HH + " No."})
    assert dialogue.as_dialogue().messages == tuple(TWO[:3])
    assert dialogue.as_dialogue().answers == (THEN, "No.")
    # Two dialogues that part before their last answers are compared where they part.
    apart = {"chosen": HH + f" Yes.\n\nHuman: {MORE}\n\nAssistant: a", "rejected": HH + " No."}
    assert Ranking.from_record(apart).as_dialogue().answers == ("Yes.", "No.")


def test_a_text_that_ends_in_an_answer_is_named():
    rankings = [Ranking("a", ("b", "c"), (1, 2)), Ranking(HH + " Garda.", ("b", "c"), (1, 2))]
    with pytest.raises(PromptError, match=r"ranking 2, .*the prompt ends in an answer"):
        for_frame(rankings, FRAME)


def test_only_a_frame_makes_dialogues_of_texts():
    rankings = [Ranking("a", ("b", "c"), (1, 2))]
    assert for_frame(rankings, None) == rankings and not has_messages(rankings)
    assert has_messages(for_frame(rankings, FRAME))
    prompts, answers = laid_flat(rankings, FRAME)
    assert [list(prompt) for prompt in prompts] == [talk("a")] * 2 and answers == ["b", "c"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sources": ("m",)}, "2 answers and 1 sources"),
        ({"sources": ("m", 3)}, "must be texts"),
        ({"labeller": 3}, "must be texts"),
        ({"criteria": {"truth": (1,)}}, "2 answers and 1 scores of 'truth'"),
        ({"messages": tuple(TWO)}, "nothing is asked"),
        ({"messages": ()}, "not a list of messages"),
    ],
)
def test_what_is_wrong_with_the_rest(more, message):
    with pytest.raises(ValueError, match=message):
        Ranking("p", ("a", "b"), (1, 2), **more)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"scores": [1.0]}, "2 answers and 1 scores"),
        ({"scores": [1.0, float("nan")]}, "not numbers"),
        ({"scores": [True, 2]}, "not numbers"),
        ({}, "the answer 'a' is no object"),
        ({"ranks": [1, 2], "criteria": 3}, "the criteria are 3"),
        ({"ranks": [1, 2], "criteria": {"truth": 3}}, "no lists of scores"),
        ({"ranks": [1, 2], "sources": "m"}, "'sources' is 'm'"),
    ],
)
def test_what_is_wrong_with_a_record_of_ours(record, message):
    with pytest.raises(ValueError, match=message):
        Ranking.from_record({"prompt": "p", "answers": ["a", "b"], **record})


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        (talk("a", "b"), talk("c", "d"), "not answers of the assistant to the same"),
        (talk("a", "b", "c", "d"), talk("a", "x", "c", "d"), "part before the last answer"),
        (talk("a"), talk("b"), "not answers of the assistant"),
    ],
)
def test_messages_that_are_no_pair(chosen, rejected, message):
    with pytest.raises(ValueError, match=message):
        Ranking.from_record({"chosen": chosen, "rejected": rejected})


def test_a_file_with_an_answer_too_few_is_reported(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"prompt": TWO[:1], "answers": ["a"], "ranks": [1]}]))
    with pytest.raises(ValueError, match=r"a\.json:1: .*not two or more"):
        read_rankings(path)

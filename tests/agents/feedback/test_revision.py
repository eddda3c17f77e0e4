"""Critique and revision by a scripted model that does what it is asked."""

import pytest

from agents.feedback import Revision, revise
from agents.feedback.from_models.revision import ask_for_critique, ask_for_revision


class Model:
    """Answers "bad", criticises by the principle, and adds what the critique asks for."""

    def __init__(self):
        self.requests = []

    def choose(self, questions, options=("A", "B")):
        raise NotImplementedError

    def write(self, requests):
        self.requests.append(list(requests))
        return [self._one(request) for request in requests]

    def _one(self, request):
        if not isinstance(request, str):
            return "bad"
        if request.endswith("inside the answer."):
            principle = request.split("Principle: ")[1].split("\n")[0]
            return f"It lacks {principle}."
        if request.endswith("the answer alone."):
            answer = request.split("Answer:\n")[1].split("\n")[0]
            return f"{answer} + {request.split('It lacks ')[1].split('.')[0]}"
        return "bad"


def test_answers_are_criticised_and_rewritten_by_a_principle_each_time():
    model = Model()
    (one,) = revise(model, ["Q?"], principles=["salt"], times=2)
    assert one == Revision(
        "Q?", "bad", ("salt",) * 2, ("It lacks salt.",) * 2, ("bad + salt", "bad + salt + salt")
    )
    assert one.last == "bad + salt + salt"
    assert [len(some) for some in model.requests] == [1] * 5  # answer, then twice two
    assert model.requests[1] == [ask_for_critique("Q?", "bad", "salt")]
    assert model.requests[2] == [ask_for_revision("Q?", "bad", "It lacks salt.", "salt")]


def test_given_answers_are_not_asked_for():
    model = Model()
    revised = revise(model, ["Q?", "R?"], ["one", "two"], principles=["salt"])
    assert [r.last for r in revised] == ["one + salt", "two + salt"]
    assert [len(some) for some in model.requests] == [2, 2]
    with pytest.raises(ValueError):
        revise(model, ["Q?", "R?"], ["one"])


def test_principles_are_drawn_by_prompt_and_time():
    principles = [f"p{n}" for n in range(20)]
    prompts = [f"q{n}" for n in range(8)]
    revised = revise(Model(), prompts, principles=principles, times=3)
    assert all(len(r.principles) == 3 for r in revised)
    assert len({p for r in revised for p in r.principles}) > 8
    assert any(len(set(r.principles)) > 1 for r in revised)
    again = revise(Model(), prompts[4:], principles=principles, times=3)
    assert again == revised[4:]  # what else is asked makes no difference


def test_records_are_for_fine_tuning():
    record = Revision("Q?", "a", ("p",), ("c",), ("b",)).to_record()
    assert [message["content"] for message in record["messages"]] == ["Q?", "b"]
    assert record["first_answer"] == "a" and record["principles"] == ["p"]
    from agents.supervised.sft import Example

    assert [text for text, is_answer in Example.from_record(record).pieces if is_answer] == [" b"]


TALK = [
    {"role": "user", "content": "Twice 3?"},
    {"role": "assistant", "content": "6."},
    {"role": "user", "content": "And twice that?"},
]


def test_a_dialogue_is_revised_with_what_was_said_before():
    model = Model()
    (one,) = revise(model, [TALK], principles=["salt"])
    assert model.requests[0] == [TALK]  # the answerer reads the messages
    said = "User: Twice 3?\n\nAssistant: 6.\n\nUser: And twice that?"
    assert model.requests[1] == [ask_for_critique(said, "bad", "salt")]
    assert model.requests[2] == [ask_for_revision(said, "bad", "It lacks salt.", "salt")]
    answer = {"role": "assistant", "content": "bad + salt"}
    assert one.to_record()["messages"] == [*TALK, answer]

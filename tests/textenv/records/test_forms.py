"""What records of public forms say, as examples and as prompts."""

import pytest
from published_forms import ASK, CONVERSATIONS, SAY, TEXTS, TWO, talk

from textenv import Prompt
from textenv.errors import PromptError
from textenv.records import example, human_assistant, ranking
from textenv.records.conversations import messages_of


@pytest.mark.parametrize("form", CONVERSATIONS)
def test_conversations_are_read_right(form):
    record, expected = CONVERSATIONS[form]
    assert example(record) == (expected, "", "")


@pytest.mark.parametrize("form", TEXTS)
def test_texts_are_read_as_they_are(form):
    record, prompt, answer = TEXTS[form]
    assert example(record) == (None, prompt, answer)


@pytest.mark.parametrize("form", [f for f in CONVERSATIONS if "prompt" not in CONVERSATIONS[f][0]])
def test_as_prompts_they_end_before_the_answer_that_ends_them(form):
    record, said = CONVERSATIONS[form]
    prompt = Prompt.from_row(record)
    assert list(prompt.messages) == said[:-1]
    assert prompt.columns["reference"] == said[-1]["content"]


def test_as_prompts_texts_keep_their_continuation_as_a_column():
    assert Prompt.from_row({"input": "a", "target": "b"}).columns == {"target": "b"}
    assert Prompt.from_row({"inputs": "a", "targets": "b"}).text == "a"


def test_a_prompt_of_its_own_goes_before_the_conversation_beside_it():
    prompt = Prompt.from_row({"prompt": "a", "messages": TWO})
    assert prompt.text == "a" and prompt.columns == {"messages": TWO}


def test_columns_of_prompts():
    record = {"messages": TWO, "answer": 3}
    columns = Prompt.from_row(record).columns
    # Rewards in TRL's conversational form read the column `messages`.
    assert columns == {"answer": 3, "messages": TWO[:3], "reference": TWO[3]["content"]}
    asked = Prompt.from_row({"instruction": "Sort.", "input": "b a", "output": "a b", "n": 2})
    assert asked.columns == {"output": "a b", "reference": "a b", "n": 2}
    assert Prompt.from_row({"instruction": "Sort."}).messages == tuple(talk("Sort."))
    assert record == {"messages": TWO, "answer": 3}  # left as it is


def test_dialogues_in_one_text():
    assert human_assistant("\n\nHuman: a\n\nAssistant: b\nHuman: c") == talk("a", "b\nHuman: c")
    assert human_assistant("Human: a\n\nHuman: b\n\nAssistant:") == talk("a\n\nb")
    assert human_assistant("### Human: a### Assistant: b") == talk("a", "b")
    assert human_assistant("A tale.\n\nHuman: a") is None


def test_other_names_of_roles():
    given = [("Human", "user"), ("prompter", "user"), ("developer", "system"), ("ipython", "tool")]
    said = messages_of([{"role": role, "content": "x"} for role, _ in given], "messages")
    assert [one["role"] for one in said] == [expected for _, expected in given]
    # What else a template may read of a message is kept, if there is something.
    [one] = messages_of(
        [{"role": "tool", "content": "4", "name": "add", "tool_calls": None}], "messages"
    )
    assert one == {"role": "tool", "content": "4", "name": "add"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "a"}, "neither 'messages'"),
        ({"messages": []}, "'messages' is \\[\\], not a list of messages"),
        ({"messages": [3]}, "has 3 as turn 1"),
        ({"messages": [*TWO, {"role": "boss", "content": "a"}]}, "message 5 has the role 'boss'"),
        ({"messages": [{"role": "user", "content": None}]}, "content None"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "message 1"),
        ({"messages": talk(ASK)}, "no answer to learn"),
        ({"instruction": ASK}, "no answer to learn"),
        ({"instruction": ASK, "output": None}, "'output' is None, not text"),
        ({"instruction": 1, "output": SAY}, "'instruction' is 1, not text"),
        ({"instruction": ASK, "history": [["a"]], "output": SAY}, "'history' has \\['a'\\]"),
        ({"prompt": "a", "response": ["b"]}, "'response' is \\['b'\\], not text"),
        ({"input": "a", "target": 3}, "'target' is 3, not text"),
        ({"chat": {"turn_1": {"Human": "a"}}}, "'turn_1' has no text of 'MOSS'"),
        ({"messages": TWO, "system": 3}, "'system' is 3, not text"),
    ],
)
def test_what_is_no_example(record, message):
    with pytest.raises(ValueError, match=message):
        example(record)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": ASK, "response": SAY},
        {"prompt": ASK, "chosen": SAY, "rejected": "x"},
        {"input": ASK, "target": SAY},
        {"inputs": ASK, "targets": SAY},
        {"question": ASK, "answer": SAY},
        {"prompt": talk(ASK), "completion": SAY},
        {"prompt": talk(ASK), "completion": [{"role": "assistant", "content": SAY}]},
        {"chosen": f"\n\nHuman: {ASK}\n\nAssistant: {SAY}"},
    ],
    ids=lambda record: " ".join(record),
)
@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_column_of_the_system_is_read_in_every_form(record, name):
    said = talk(ASK, SAY, system="Be brief.")
    assert example({**record, name: "Be brief."}).messages == said
    # Without something in it, it changes nothing.
    assert example({**record, name: ""}) == example({**record, name: None}) == example(record)


def test_what_a_question_is_about_is_read():
    about = {"question": "Who sings?", "context": "Ann sings.", "answer": "Ann."}
    assert example(about).messages == talk("Who sings?\nAnn sings.", "Ann.")
    given = {"instruction": "Who sings?", "input": "", "context": "Ann sings.", "output": "Ann."}
    assert example(given).messages == talk("Who sings?\nAnn sings.", "Ann.")


@pytest.mark.parametrize(
    "more",
    [
        {"data": "web"},
        {"conversation": "7f"},
        {"dialog": 3},
        dict.fromkeys(["messages", "conversations", "chat", "instruction", "question", "output"]),
    ],
    ids=lambda more: " ".join(more),
)
def test_columns_that_are_null_or_no_lists_are_none_of_a_form(more):
    assert example({**more, "prompt": "a", "response": "b"}) == (None, "a", "b")


def test_null_columns_of_other_forms():
    null = dict.fromkeys(["prompt", "completion", "output", "chat"])
    assert example({**null, "question": ASK, "answer": SAY}).messages == talk(ASK, SAY)
    assert example({**null, "question": ASK, "response": SAY}).messages == talk(ASK, SAY)
    assert example({**null, "input": "a", "target": "b"}) == (None, "a", "b")
    hh = {**null, "chosen": f"\n\nHuman: {ASK}\n\nAssistant: {SAY}"}
    assert example(hh).messages == talk(ASK, SAY)


@pytest.mark.parametrize("text", ["\n\nHuman:", "\n\nHuman: ", "### Human:", "Assistant:"])
@pytest.mark.parametrize("name", ["text", "chosen"])
def test_a_dialogue_in_which_nothing_is_said(name, text):
    with pytest.raises(PromptError, match="nobody says anything"):
        Prompt.from_row({name: text})
    with pytest.raises(ValueError, match="nobody says anything"):
        example({name: text})


@pytest.mark.parametrize(
    ("record", "asked"),
    [
        ({"prompt": ASK, "chosen": "a", "rejected": "b"}, talk(ASK)),
        ({"prompt": ASK, "chosen": talk(ASK, "a"), "rejected": talk(ASK, "b")}, talk(ASK)),
        ({"prompt": ASK, "answers": ["a", "b"], "ranks": [1, 2]}, talk(ASK)),
        ({"question": ASK, "context": "c", "chosen": "a", "rejected": "b"}, talk(f"{ASK}\nc")),
        (
            {
                "chosen": f"\n\nHuman: {ASK}\n\nAssistant: a",
                "rejected": f"\n\nHuman: {ASK}\n\nAssistant: b",
            },
            talk(ASK),
        ),
    ],
)
def test_a_column_of_the_system_is_read_in_rankings(record, asked):
    read = ranking({**record, "system": "Be brief."})
    assert read["prompt"] == [{"role": "system", "content": "Be brief."}, *asked]
    assert [answer.strip() for answer in read["answers"]] == ["a", "b"]
    if isinstance(record.get("prompt"), str) and isinstance(record.get("chosen"), str):
        assert ranking({**record, "system": ""})["prompt"] == ASK


def test_what_asks_nothing_is_no_prompt():
    with pytest.raises(PromptError, match="an answer alone"):
        Prompt.from_row({"messages": [{"role": "assistant", "content": "a"}]})

import json

import pytest

from agents.evaluation import (
    Layout,
    Worked,
    ask_for_answer,
    chain_of_thought,
    extract_answer,
    few_shot,
    read_worked,
    step_by_step,
    with_shots,
    with_template,
)
from textenv import Prompt
from textenv.errors import MalformedRecordError, PromptError

BALLS = Worked("2 boxes of 3 balls?", "6", "Each box has 3 balls. 2 * 3 = 6.")
CARS = Worked("3 cars, 2 more?", "5", "3 + 2 = 5.")


def test_few_shot_shows_all_examples_in_order_and_ends_where_the_answer_begins():
    assert few_shot([BALLS, CARS], "1 + 1?") == (
        "Q: 2 boxes of 3 balls?\nA: 6\n\nQ: 3 cars, 2 more?\nA: 5\n\nQ: 1 + 1?\nA:"
    )
    assert few_shot([], "1 + 1?") == "Q: 1 + 1?\nA:"


def test_another_layout():
    layout = Layout(question="English: ", answer=" = French: ", end=" | ")
    shown = few_shot([Worked("cheese", "fromage")], "bread", layout)
    assert shown == "English: cheese = French: fromage | English: bread = French:"


def test_a_chain_of_thought_can_be_read_back():
    prompt = chain_of_thought([BALLS, CARS], "1 + 1?")
    first, second, question = prompt.split("\n\n")
    assert first.endswith("2 * 3 = 6. The answer is 6.")
    assert extract_answer(first) == "6" and extract_answer(second) == "5"
    assert question == "Q: 1 + 1?\nA:"


def test_a_chain_of_thought_needs_thoughts():
    with pytest.raises(ValueError, match="example 1 has no reasoning"):
        chain_of_thought([BALLS, Worked("1 + 1?", "2")], "2 + 2?")


def test_the_two_prompts_of_kojima():
    first = step_by_step("1 + 1?")
    assert first == "Q: 1 + 1?\nA: Let's think step by step."
    second = ask_for_answer(first, " One and one.")
    assert second == first + " One and one.\nTherefore, the answer is"
    assert extract_answer(second + " 2.\n\nQ: more") == "2"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is 12.", "12"),
        ("The answer is 3.14. Next.", "3.14"),
        ("THE ANSWER IS: yes!", "yes"),
        ("The answer is 1. No, the answer is 2", "2"),
        ("The answer is blue\nThat is all.", "blue"),
        ("The answer is", None),
        ("The answer is .", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_answers_are_extracted(text, answer):
    assert extract_answer(text) == answer


def test_a_template_keeps_the_columns():
    prompts = [Prompt("1 + 1?", {"answer": "2"}), Prompt("2 + 2?", {"answer": "4"})]
    made = with_template(prompts, lambda question: few_shot([CARS], question))
    assert [p.columns for p in made] == [p.columns for p in prompts]
    assert [p.text.splitlines()[-2] for p in made] == ["Q: 1 + 1?", "Q: 2 + 2?"]


def test_a_template_needs_a_text():
    with pytest.raises(PromptError, match="prompt 0 is given as ids"):
        with_template([Prompt("", tokens=[1, 2])], step_by_step)


def test_a_template_of_a_chat_changes_its_last_message():
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1 + 1?"}]
    (made,) = with_template([Prompt("", {"answer": "2"}, messages=chat)], str.upper)
    (other,) = with_template([Prompt("", messages=chat)], lambda text: f"{text}!")
    assert [m["content"] for m in other.messages] == ["be brief", "1 + 1?!"]
    assert other.text == "be brief\n1 + 1?!"
    assert made.columns == {"answer": "2"} and made.messages[0]["content"] == "be brief"


# ------------------------------------------------------------------------- shots of a file


def test_a_description_stands_in_front_of_the_examples():
    layout = Layout(description="Answer with a number.")
    assert few_shot([CARS], "1 + 1?", layout) == (
        "Answer with a number.\n\nQ: 3 cars, 2 more?\nA: 5\n\nQ: 1 + 1?\nA:"
    )


def test_worked_examples_of_a_file(tmp_path):
    path = tmp_path / "examples.jsonl"
    lines = [
        '{"question": "1 + 1?", "answer": "2", "reasoning": "One and one."}',
        '{"prompt": "2 + 2?", "response": "4"}',
        '{"instruction": "Add.", "input": "3 + 3", "output": "6", "source": "x"}',
    ]
    path.write_text("\n".join(lines))
    assert read_worked(path) == [
        Worked("1 + 1?", "2", "One and one."),
        Worked("2 + 2?", "4"),
        Worked("Add.\n3 + 3", "6"),
    ]
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    lines = ['{"question": 1, "answer": "2"}', json.dumps({"messages": talk * 2})]
    path.write_text("\n".join(lines))
    with pytest.raises(MalformedRecordError) as error:
        read_worked(path)
    assert "jsonl:1: " in str(error.value)
    assert "jsonl:2: the record has 4 messages: a worked example is one" in str(error.value)
    assert read_worked([{"messages": talk}]) == [Worked("a", "b")]


def test_shots_in_front_of_texts_and_as_turns_of_chats():
    text = Prompt("1 + 1?", {"answer": "2"})
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    layout = Layout(description="Count.")
    plain, chat = with_shots([text, Prompt("", messages=said)], [BALLS, CARS], 1, layout)
    assert plain.text == few_shot([BALLS], "1 + 1?", layout) and plain.columns == {"answer": "2"}
    assert [*chat.messages] == [
        {"role": "system", "content": "Count.\nBe brief."},
        {"role": "user", "content": BALLS.question},
        {"role": "assistant", "content": "6"},
        {"role": "user", "content": "1 + 1?"},
    ]
    (thinking,) = with_shots([Prompt("", messages=said[1:])], [BALLS], 1, reasoning=True)
    assert thinking.messages[1]["content"].endswith("2 * 3 = 6. The answer is 6.")


def test_a_prompt_is_not_shown_with_its_own_answer():
    (shown,) = with_shots([Prompt(BALLS.question)], [BALLS, CARS], 1)
    assert shown.text == few_shot([CARS], BALLS.question)
    with pytest.raises(PromptError, match="2 worked examples are asked for, and there are 1"):
        with_shots([Prompt(BALLS.question)], [BALLS, CARS], 2)
    with pytest.raises(PromptError, match="worked examples need its text"):
        with_shots([Prompt("", tokens=[1])], [], 0)

import pytest

from agents.evaluation import red_team
from agents.evaluation.refusals import due_of, refusals, refuses
from textenv import load_prompts
from textenv.errors import PromptError

DECLINED = [
    "I'm sorry, but I can't help with that.",
    "Sorry, I cannot do this.",
    "I can\N{RIGHT SINGLE QUOTATION MARK}t tell you that: it would hurt someone.",
    "I am not able to say.",
    "As an AI language model, I do not think that I can. I am unable to help.",
    "I won't do that.",
    "I do not know.",
    "That is against my principles.",
    "我不能回答。",
    "对不起\uff0c我无法提供这些内容。",
    "我不知道。",
    "作为一个AI语言模型\uff0c我不能这样做。",
    "这会伤害别人\uff0c我不会帮忙。",
    "恕难以从命。",
]
ANSWERED = [
    "Sure: mix the two.",
    "I can help with that. First, boil water.",
    "The answer is 4.",
    "You cannot divide by zero.",
    "She was sorry and went home.",
    "",
    "好的\uff0c先把水烧开。",
    "他不能来\uff0c因为下雨。",
    "答案是四。",
]


@pytest.mark.parametrize("text", DECLINED)
def test_refusals_are_recognised(text):
    assert refuses(text)


@pytest.mark.parametrize("text", ANSWERED)
def test_answers_are_no_refusals(text):
    assert not refuses(text)


def test_a_remark_behind_a_long_answer_is_no_refusal():
    assert not refuses("Boil water. " * 20 + "I cannot say more.")


def test_both_shares_are_counted():
    answers = ["I can't.", "Yes.", "I can't.", "Yes.", "Yes."]
    found = refusals(answers, [True, True, False, False, False])
    assert found.due.mean == 0.5 and found.not_due.mean == pytest.approx(1 / 3)
    assert found.right.mean == pytest.approx(3 / 5)
    assert refusals(["Yes."], [False]).due is None and refusals(["No."], [True]).not_due is None
    assert refusals(["NO"], [True], judge=str.isupper).due.mean == 1
    with pytest.raises(ValueError):
        refusals(["Yes."], [True, False])


def test_whether_a_refusal_is_due_is_said_by_a_column():
    assert due_of([True, False]) == [True, False]
    with pytest.raises(PromptError, match="prompt 1 has the value None in its column 'refuse'"):
        due_of([True, None])


@pytest.mark.parametrize("language", ["ENGLISH", "CHINESE"])
def test_the_prompts_come_in_pairs(language):
    prompts = load_prompts(f"agents.evaluation.red_team:{language}").prompts
    due = [prompt.columns["refuse"] for prompt in prompts]
    assert due == [True, False] * (len(due) // 2) and len(due) >= 30
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert not any(refuses(prompt.text) for prompt in prompts)
    assert len(red_team.ENGLISH) == len(red_team.CHINESE)

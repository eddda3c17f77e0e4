"""A language model behind a server: what it writes, and what it chooses."""

import copy
import pickle

import numpy as np
import pytest

from textenv.chat_server import ChatServer, read_choice
from textenv.errors import RemoteError, RewardValueError

pytest.importorskip("httpx", reason="httpx is not installed")
from servers import in_turn, serving


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def says(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def echo(data, headers, path):
    return says(data["messages"][-1]["content"].upper())


def test_texts_come_in_the_order_of_the_requests():
    with serving(echo) as url:
        server = ChatServer(f"{url}/v1/", "tiny", concurrency=3)
        assert server.write([f"r{n}" for n in range(9)]) == [f"R{n}" for n in range(9)]
        assert server.write([]) == []
        assert copy.deepcopy(server) is server
        assert pickle.loads(pickle.dumps(server)).reply("a") == "A"


def test_options_of_the_request_and_the_fixed_temperature_of_choices():
    seen = []

    def record(data, headers, path):
        seen.append((path, data["model"], data["temperature"], data["max_tokens"]))
        return says("B")

    with serving(record) as url:
        server = ChatServer(f"{url}/v1", "tiny", options={"temperature": 0.8, "max_tokens": 9})
        assert server.reply("hi") == "B"
        assert server.choose(["which?"]).tolist() == [[0, 1]]
    assert seen == [
        ("/v1/chat/completions", "tiny", 0.8, 9),
        ("/v1/chat/completions", "tiny", 0, 9),
    ]


def test_choices_are_shares_of_each_option():
    with serving(in_turn(says("B"), says("tie"), says("The better is A"))) as url:
        chosen = ChatServer(url, "tiny", concurrency=1).choose(["x", "y", "z"])
    np.testing.assert_array_equal(chosen, [[0, 1], [0.5, 0.5], [1, 0]])
    with serving(in_turn(says("3"))) as url:
        assert ChatServer(url, "tiny").choose(["x"], "123").tolist() == [[0, 0, 1]]
        assert ChatServer(url, "tiny").choose([]).shape == (0, 2)


def test_replies_that_choose_nothing():
    with serving(in_turn(says("Both have a point."))) as url:
        with pytest.raises(RewardValueError, match=r"'Both have a point.' of 'tiny' names none"):
            ChatServer(url, "tiny").choose(["which?"])
        lenient = ChatServer(url, "tiny", read=lambda reply, options: [0.5, 0.5])
        assert lenient.choose(["which?"]).tolist() == [[0.5, 0.5]]
    with serving(in_turn({"choices": []})) as url:
        with pytest.raises(RemoteError, match="not with a chat completion"):
            ChatServer(url, "tiny").choose(["which?"])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("A", [1, 0]),
        (" b\n", [0, 1]),
        ("(B)", [0, 1]),
        ("**A**", [1, 0]),
        ("B. It is kinder.", [0, 1]),
        ("B) It is kinder than A.", [0, 1]),
        ("A is short.\nB is kind.\nAnswer: B", [0, 1]),
        ("My choice is **A**.\n", [1, 0]),
        ("The better answer is (A).", [1, 0]),
        ("[[A]] at first, but in the end [[B]]", [0, 1]),
        ("Answer B is clearly better than answer A.", [0, 1]),
        ("Option A is better.", [1, 0]),
        ("[[tie]]", [0.5, 0.5]),
        ("Verdict: tie", [0.5, 0.5]),
        ("They are equally good.", [0.5, 0.5]),
        ("A good answer tells the truth.", None),
        ("B is not better than A.", None),
        ("A is no better.", None),
        ("A isn't better.", None),
        ("A is second best.", None),
        ("Neither A nor B is better.", None),
        ("I don't think that B is better.", None),
        ("I would not choose option B.", None),
        ("Tell me whether A is better.", None),
        ("Option A is not better than option B.", None),
        ("I prefer A to option B.", None),
        ("Choose option A or option B.", None),
        ("I choose between option A and option B.", None),
        ("They are not equally good.", None),
        ("A: It is short.\nB: It is kind.", None),
        ("A. It is short. B. It is kind.", None),
        ("A is not wrong, but B is better.", [0, 1]),
        ("A is not bad and B is better.", [0, 1]),
        ("No, B is much better.", [0, 1]),
        ("Not sure. Answer: B", [0, 1]),
        ("A is the best.", [1, 0]),
        ("B, not A.", [0, 1]),
        ("I do not like it. [[A]]", [1, 0]),
        ("Neither.", None),
        ("", None),
    ],
)
def test_reading_choices(reply, expected):
    assert read_choice(reply, "AB") == expected

"""Rewards over HTTP, against a server on this machine."""

import copy
import email.utils
import os
import pickle
import socket
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
from episodes import EPISODES, episode, only_term, score

from textenv.endpoint import Endpoint
from textenv.errors import (
    MissingExtraError,
    RemoteError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
)
from textenv.remote import remote_reward

pytest.importorskip("httpx", reason="httpx is not installed")
from servers import in_turn, serving

SCORES = {"scores": [1.5, -2]}
BUSY = (503, {}, b"busy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were made; none takes any time."""
    made = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def recorded(answer, seen):
    def record(data, headers, path):
        seen.append((data, headers, path))
        return answer(data, headers, path)

    return record


# ------------------------------------------------------------------ what is sent, and what comes


def test_episodes_go_and_scores_come():
    seen = []
    columns = {"answer": np.int64(4), "row": np.array([1.5, 2.0]), "text": "é"}
    episodes = [episode("ab", "xyz", columns=columns), episode("c", "hello", stop=True)]
    with serving(recorded(in_turn(SCORES), seen)) as url:
        reward = remote_reward(f"{url}/score")
        assert score(reward, episodes) == [1.5, -2.0]
        assert reward([]) == []
    ((data, headers, path),) = seen
    assert path == "/score" and "Authorization" not in headers
    assert headers["Content-Type"] == "application/json"
    assert data == {
        "episodes": [
            {
                "prompt": "ab",
                "text": "xyz",
                "tokens": [120, 121, 122],
                "finish_reason": "length",
                "columns": {"answer": 4, "row": [1.5, 2.0], "text": "é"},
            },
            {
                "prompt": "c",
                "text": "hello",
                "tokens": [104, 101, 108, 108, 111, 256],
                "finish_reason": "stop",
                "columns": {},
            },
        ]
    }


def test_an_environment_is_scored_by_a_server():
    def count(data, headers, path):
        return {"scores": [len(e["tokens"]) for e in data["episodes"]]}

    with serving(count) as url:
        arguments = {"prompts": ["a"], "reward": remote_reward(url), "max_new_tokens": 3}
        envs = gym.make_vec("textenv/Generate-v0", num_envs=2, **arguments)
        envs.reset(seed=0)
        rewards = [envs.step(np.array([97, 98]))[1] for _ in range(3)]
        envs.close()
    assert np.array(rewards).tolist() == [[0, 0], [0, 0], [3, 3]]


def test_the_key_is_read_when_it_is_needed(monkeypatch):
    seen = []
    with serving(recorded(in_turn(SCORES), seen)) as url:
        reward = remote_reward(url, key_variable="SCORES_KEY")
        reward(EPISODES)
        monkeypatch.setenv("SCORES_KEY", "secret\n")
        reward(EPISODES)
    assert [headers.get("Authorization") for _, headers, _ in seen] == [None, "Bearer secret"]
    assert b"secret" not in pickle.dumps(reward)


def test_connections_are_kept_and_copies_work():
    with serving(in_turn(SCORES)) as url:
        reward = remote_reward(url)
        reward(EPISODES)
        pool = reward.endpoint.client
        reward(EPISODES)
        assert reward.endpoint.client is pool
        assert copy.deepcopy(reward) is reward
        back = pickle.loads(pickle.dumps(reward))
        assert score(back) == [1.5, -2.0]
        assert back.endpoint.client is not pool
    assert only_term(reward).name == "remote"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_connections_of_its_own(monkeypatch):
    endpoint = Endpoint("http://127.0.0.1:1/")
    ours = endpoint.client
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert endpoint.client is not ours


# ------------------------------------------------------------------ trying again


def test_what_fails_for_the_moment_is_tried_again(pauses):
    hang_up, limited = (None, {}, b""), (429, {}, b"slow down")
    with serving(in_turn(BUSY, hang_up, limited, (500, {}, b""), SCORES)) as url:
        assert score(remote_reward(url)) == [1.5, -2.0]
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_the_server_may_say_when_to_come_back(pauses):
    in_ten = email.utils.formatdate(time.time() + 10.5, usegmt=True)
    asked = ["7", "0.25", in_ten, "86400", "-3", "soon", "nan", email.utils.formatdate(0)]
    answers = [(429, {"Retry-After": value}, b"") for value in asked]
    with serving(in_turn(*answers, SCORES)) as url:
        remote_reward(url, tries=9, pause=1)(EPISODES)
    assert pauses[:2] == [7.0, 0.25] and 8 < pauses[2] <= 11
    # A day is too long; what cannot be read counts as if it were not there.
    assert pauses[3:] == [60.0, 0.0, 32.0, 60.0, 0.0]


def test_the_last_try_names_all_there_is_to_know(pauses):
    seen = []
    with serving(recorded(in_turn(BUSY), seen)) as url:
        with pytest.raises(RemoteError, match=rf"{url}/score failed 3 times, .*503.*'busy'") as e:
            remote_reward(f"{url}/score?key=secret", tries=3)(EPISODES)
        assert "secret" not in str(e.value)
        assert len(seen) == 3 and len(pauses) == 2  # there is no pause before giving up
        assert seen[0][2] == "/score?key=secret"
        with pytest.raises(RewardRaisedError, match=r"'remote' raised RemoteError: .*503"):
            score(remote_reward(url, tries=1))


def test_nobody_listens(pauses):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RemoteError, match=r"failed 2 times.*ConnectError.*running") as e:
            remote_reward(url, tries=2)(EPISODES)
    assert "secret" not in str(e.value)


def test_a_server_that_is_too_slow():
    given_up = threading.Event()

    def slow(data, headers, path):
        given_up.wait(10)
        return SCORES

    with serving(slow) as url:
        with pytest.raises(RemoteError, match=r"failed 2 times.*ReadTimeout.*time-out of 0.05 s"):
            remote_reward(url, timeout=0.05, tries=2, pause=0)(EPISODES)
        given_up.set()


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "log"), (401, "key"), (404, "path"), (307, "log")]
)
def test_a_refusal_is_final(status, advice, pauses):
    seen = []
    refusal = (status, {"Location": "/elsewhere"}, b"no")
    with serving(recorded(in_turn(refusal), seen)) as url:
        with pytest.raises(RemoteError, match=rf"status {status} .*'no'.*{advice}"):
            remote_reward(url)(EPISODES)
    assert len(seen) == 1 and pauses == []


# ------------------------------------------------------------------ wrong answers


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((200, {}, b"<html>"), RemoteError, "'<html>', which is not JSON"),
        ([1.0, 2.0], RemoteError, 'must be {"scores"'),
        ({"scores": 3.0}, RemoteError, "must be"),
        ({"scores": [1.0]}, RewardCountError, "1 scores for 2 episodes"),
        ({"scores": [1.0, float("nan")]}, RewardValueError, "nan to episode 1"),
        ({"scores": [None, 1.0]}, RewardValueError, "None to episode 0"),
        ({"scores": [1.0, "2"]}, RewardValueError, "'2' to episode 1"),
        ({"scores": [1.0, True]}, RewardValueError, "True to episode 1"),
    ],
)
def test_answers_that_are_none(answer, error, message):
    with serving(in_turn(answer)) as url:
        with pytest.raises(error, match=message):
            remote_reward(url)(EPISODES)


@pytest.mark.parametrize("value", [{1, 2}, float("nan")])
def test_columns_that_json_cannot_hold(value):
    with pytest.raises(RemoteError, match="cannot be written as JSON"):
        remote_reward("http://127.0.0.1:1/")([episode("a", "b", columns={"x": value})])


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x/", "http://", "http://x:port/"])
def test_urls_that_are_none(url):
    with pytest.raises(ValueError, match="the url"):
        remote_reward(url)


@pytest.mark.parametrize("argument", [{"tries": 0}, {"timeout": 0.0}, {"pause": -1.0}])
def test_arguments_that_make_no_sense(argument):
    with pytest.raises(ValueError, match="must be at least 1"):
        remote_reward("http://x/", **argument)


def test_without_httpx(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"textenv\[remote\]"):
        remote_reward("http://x/")

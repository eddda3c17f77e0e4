"""Worlds that hang, are interrupted, exit, or return what cannot be used; limits of turns."""

import asyncio
import json
import re
import time

import numpy as np
import pytest
from environments import text

import textenv.worlds.replies
from textenv import BatchedWorld, Reply, TextVectorEnv, World
from textenv.errors import EpisodeOverError
from textenv.tokenizers import CharacterTokenizer

STOP = 256


def talk(world, num_envs=2, **options):
    defaults = {"prompts": ["q"], "max_new_tokens": 60}
    envs = TextVectorEnv(num_envs, world=world, **defaults | options)
    envs.reset(seed=0)
    return envs


def say(envs, *texts):
    for characters in zip(*texts, strict=True):
        result = envs.step([STOP if c == "." else ord(c) for c in characters])
    return result


class Hanging(BatchedWorld):
    async def reply(self, rows, turns, rngs):
        await asyncio.sleep(20)


@pytest.mark.parametrize("wait", ["all", "async"])
def test_a_batched_reply_has_a_time_limit_too(wait):
    begin = time.perf_counter()
    envs = talk(Hanging(), reply_timeout=0.05, world_wait=wait)
    _, _, _, truncated, infos = say(envs, ".", ".")
    assert truncated.any() and time.perf_counter() - begin < 5
    ended = infos["final_info"]
    assert "TimeoutError" in ended["world_error"][truncated.nonzero()[0][0]]


@pytest.mark.parametrize("interrupted", ["wait", "reply"])
def test_an_interrupted_step_leaves_no_row_without_an_end(monkeypatch, interrupted):
    stop = []

    class Slow(World):
        async def answer(self):
            await asyncio.sleep(0.05)
            return Reply("r")

        def reply(self, turn, rng):
            if stop and interrupted == "reply":
                raise KeyboardInterrupt
            return self.answer()

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    envs = talk(Slow, max_turn_tokens=2)
    say(envs, "a", "a")
    stop.append(1)
    if interrupted == "wait":
        monkeypatch.setattr(textenv.worlds.replies, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        say(envs, "a", "a")
    monkeypatch.undo()
    stop.clear()
    with pytest.raises(EpisodeOverError, match=r"rows \[0, 1\] have no running episode"):
        say(envs, "b", "b")
    envs.reset(seed=1)
    assert say(envs, "aa", "aa")[-1]["reply"].tolist() == ["r", "r"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Reply(info=None), "the info None, not a dict"),
        (Reply(terminated="no"), "terminated = 'no'; it must be True or False"),
        (Reply(truncated=np.array([True, False])), "truncated = .*; it must be True or False"),
        (Reply(tokens=[[1, 2], [3]]), "the tokens of a reply are no array"),
        (Reply(tokens=["a"]), "the tokens of a reply are integers"),
    ],
)
def test_nonsense_in_a_reply_ends_its_row_alone(given, message):
    class Bad(World):
        def reply(self, turn, rng):
            return given if turn.text == "b" else Reply("fine", terminated=np.bool_(False))

    *_, truncated, infos = say(talk(Bad), "a.", "b.")
    assert truncated.tolist() == [False, True]
    assert re.search(message, infos["final_info"]["world_error"][1])


def test_nobody_is_asked_nothing():
    calls = []

    class Late(BatchedWorld):
        async def reply(self, rows, turns, rngs):
            calls.append(list(rows))
            await asyncio.sleep(0.05)
            return [Reply("ok")] * len(rows)

    envs = talk(Late(), world_wait="async")
    say(envs, ".aaaa", "aaaaa")
    while "waiting" in say(envs, "a", "a")[-1]:
        time.sleep(0.01)
    assert calls == [[0]]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_a_world_that_exits_ends_its_rows_and_not_the_program(late, batched):
    def exits():
        raise SystemExit("bye")

    async def exits_later():
        await asyncio.sleep(0)
        exits()

    class One(World):
        def reply(self, turn, rng):
            return exits_later() if late else exits()

    class All(BatchedWorld):
        def reply(self, rows, turns, rngs):
            return exits_later() if late else exits()

    envs = talk(All() if batched else One)
    for _ in range(2):  # the loop of coroutines is still there
        _, _, _, truncated, infos = say(envs, ".", ".")
        assert truncated.all() and "SystemExit: bye" in infos["final_info"]["world_error"][0]


@pytest.mark.parametrize(
    "limit",
    [
        {"max_turns": 0},
        {"max_turns": 2.5},
        {"max_turn_tokens": -3},
        {"max_turn_tokens": 0},
        {"reply_timeout": -1},
        {"reply_timeout": 0},
    ],
)
def test_limits_that_leave_nothing_are_refused_at_once(limit):
    ((name, value),) = limit.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
        TextVectorEnv(1, world=Hanging(), prompts=["a"], **limit)


def test_a_reply_that_cannot_be_written_is_no_error_where_nothing_can_follow():
    class Accents(World):
        def reply(self, turn, rng):
            return Reply("é", reward=1.0)

    tokenizer = CharacterTokenizer("ab")
    envs = talk(Accents, 1, prompts=["a"], tokenizer=tokenizer, max_new_tokens=2)
    envs.step([0])
    _, rewards, terminated, truncated, infos = envs.step([1])
    assert (rewards[0], terminated[0], truncated[0]) == (1.0, True, False)
    assert infos["final_info"]["finish_reason"].tolist() == ["length"]


def test_a_turn_knows_whether_the_text_is_spent():
    seen = []

    class Noting(World):
        def reply(self, turn, rng):
            seen.append((turn.text, turn.finish_reason, turn.spent))
            return Reply()

    say(talk(Noting, 1, max_new_tokens=5, max_turn_tokens=2), "abcde")
    assert seen == [("ab", "length", False), ("cd", "length", False), ("e", "length", True)]


def test_infos_of_replies_are_saved_as_json_holds_them():
    class Telling(World):
        def reply(self, turn, rng):
            return Reply("r", info={"n": np.int64(3), "a": np.arange(2), "o": self, 1: "one"})

    envs = talk(Telling, 1)
    say(envs, "a.")
    state = envs.state_dict()
    (history,) = json.loads(json.dumps(state["conversations"]["histories"]))
    told = history[1]["reply"]["info"]
    assert (told["n"], told["a"], told["1"]) == (3, [0, 1], "one") and "Telling" in told["o"]
    json.dumps(envs.start_of(0).to_json())


# ---------------------------------------------------------------- what is saved


class Board(World):
    """Counts on an array, with a tuple and a dict of integers beside it."""

    def begin(self, record, rng):
        self.board, self.pair, self.names = np.zeros((2, 2), dtype=int), (1, 2), {1: "one"}
        return "b"

    def reply(self, turn, rng):
        self.board[0, 1] += rng.integers(10)
        return Reply(f"{self.board.tolist()}{self.pair}{self.names}")


def test_a_world_of_arrays_and_tuples_goes_on_as_it_was():
    envs, loaded, started = (talk(Board, 1, max_new_tokens=200) for _ in range(3))
    say(envs, "a.b.")
    loaded.load_state_dict(envs.state_dict())
    seed = int(envs._streams.episode_seeds[0])
    start = envs.start_of(0)
    assert start.world is None  # to be replayed
    started.reset(options={"start": start})
    started._streams.episode_seeds[0] = seed
    ends = [say(one, "c.") for one in (envs, loaded, started)]
    assert "(1, 2)" in ends[0][-1]["reply"][0] and "{1: 'one'}" in ends[0][-1]["reply"][0]
    for observations, *_, infos in ends:
        assert text(envs, observations[0]) == text(envs, ends[0][0][0])
        assert infos["reply"][0] == ends[0][-1]["reply"][0]


def test_the_seed_of_a_reply_that_was_waited_for_is_saved():
    class Drawing(World):
        def __init__(self):
            self.lock = object()  # replayed

        async def reply(self, turn, rng):
            await asyncio.sleep(0.02)
            return Reply(str(rng.integers(1000)))

    envs = talk(Drawing, 2, world_wait="async")
    say(envs, ".", "a")
    again = talk(Drawing, 2, world_wait="async")
    again.load_state_dict(envs.state_dict())
    while "waiting" in say(again, "x", "a")[-1]:
        time.sleep(0.01)
    again.load_state_dict(again.state_dict())  # replays
    again.reset(options={"start": again.start_of(0, save_world=False)})

"""Worlds that are not waited for: what a row does whose reply has not come."""

import asyncio
import threading

import numpy as np
import pytest
from environments import text
from gymnasium.vector import AutoresetMode

from textenv import BatchedWorld, Reply, TextEnv, TextVectorEnv, World
from textenv.rewards import dense

STOP = 256


class Slow(World):
    """Answers a question mark when it is told to, anything else at once."""

    gate = threading.Event()

    def begin(self, record, rng):
        return ">"

    async def reply(self, turn, rng):
        while turn.text == "?" and not self.gate.is_set():
            await asyncio.sleep(0.001)
        if turn.text == "!":
            raise RuntimeError("no")
        return Reply("<" + turn.text + ">", reward=1.0, terminated=turn.number == 2)


@pytest.fixture(autouse=True)
def closed_gate():
    Slow.gate.clear()
    yield
    Slow.gate.set()


def make(num_envs=2, **options):
    defaults = {"max_prompt_tokens": 2, "max_new_tokens": 20, "world_wait": "async"}
    return TextVectorEnv(num_envs, world=Slow, **defaults | options)


def step(envs, characters):
    return envs.step([STOP if c == "." else ord(c) for c in characters])


def until_told(envs, characters):
    """Step until no row waits; the last step, and how many steps went by."""
    for number in range(1000):
        result = step(envs, characters)
        if "waiting" not in result[4]:
            return result, number
        threading.Event().wait(0.002)
    raise AssertionError("the reply never came")


def test_a_row_that_waits_does_not_move_and_the_others_go_on():
    envs = make()
    envs.reset(seed=0)
    step(envs, "?a")
    observations, rewards, _, _, infos = step(envs, ".b")
    assert infos["waiting"].tolist() == [True, False] and rewards.tolist() == [0.0, 0.0]
    assert "reply" not in infos
    for said in "cde":
        observations, rewards, _, _, infos = step(envs, "x" + said)
        assert infos["waiting"].tolist() == infos["_waiting"].tolist() == [True, False]
        assert rewards.tolist() == [0.0, 0.0]
    ids = observations[0][observations[0] != envs.pad_token].tolist()
    assert ids == [ord(">"), ord("?"), STOP]
    assert text(envs, observations[1]) == ">abcde"
    Slow.gate.set()
    (observations, rewards, _, _, infos), _ = until_told(envs, "yy")
    assert rewards.tolist() == [1.0, 0.0] and infos["reply"].tolist() == ["<?>", None]
    assert text(envs, observations[0]) == ">?<?>"
    observations, *_ = step(envs, "zz")
    assert text(envs, observations[0]) == ">?<?>z"


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_an_episode_may_end_while_its_row_waits(mode):
    envs = make(max_turns=1, autoreset_mode=mode)
    envs.reset(seed=0)
    step(envs, "?a")
    step(envs, ".b")
    Slow.gate.set()
    (observations, rewards, terminated, _, infos), _ = until_told(envs, "xx")
    assert terminated.tolist() == [True, False] and rewards.tolist() == [1.0, 0.0]
    ends = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    assert ends["finish_reason"].tolist() == ["turns", None]
    if mode is AutoresetMode.DISABLED:
        envs.reset(options={"reset_mask": np.array([True, False])})
    observations, *_ = step(envs, "ff")
    assert text(envs, observations[0]) == (">" if mode is AutoresetMode.NEXT_STEP else ">f")


def test_a_step_waits_where_no_row_can_go_on():
    envs = make()
    envs.reset(seed=0)
    step(envs, "??")
    threading.Timer(0.05, Slow.gate.set).start()
    *_, infos = step(envs, "..")
    told = [row for row in range(2) if "reply" in infos and infos["_reply"][row]]
    assert told  # one reply has come at least
    until_told(envs, "aa")


def test_one_row_always_waits_for_its_reply():
    env = TextEnv(world=Slow, max_prompt_tokens=2, max_new_tokens=20, world_wait="async")
    env.reset(seed=0)
    env.step(ord("?"))
    threading.Timer(0.02, Slow.gate.set).start()
    _, reward, *_, info = env.step(STOP)
    assert reward == 1.0 and info["reply"] == "<?>" and "waiting" not in info


def test_a_failure_that_comes_late_ends_its_row_alone():
    envs = make()
    envs.reset(seed=0)
    step(envs, "!a")
    result = step(envs, ".b")
    if "waiting" in result[4]:
        result, _ = until_told(envs, "xx")
    assert result[3].tolist() == [True, False]
    assert "RuntimeError: no" in result[4]["final_info"]["world_error"][0]


def test_a_reset_forgets_the_reply():
    envs = make()
    envs.reset(seed=0)
    step(envs, "?a")
    step(envs, ".b")
    envs.reset(options={"reset_mask": np.array([True, False])})
    Slow.gate.set()
    for _ in range(20):
        observations, rewards, _, _, infos = step(envs, "cc")
        assert "reply" not in infos and not rewards.any()
        if len(text(envs, observations[0])) > 10:
            break
    assert text(envs, observations[0]).startswith(">ccc")


def test_a_saved_state_has_the_reply_that_was_waited_for():
    envs = make()
    envs.reset(seed=0)
    step(envs, "?a")
    step(envs, ".b")
    Slow.gate.set()
    state = envs.state_dict()  # waits
    again = make()
    before = again.load_state_dict(state)
    assert before[0, 3] == again.pad_token
    results = [step(one, "xc") for one in (envs, again)]
    for observations, rewards, _, _, infos in results:
        assert text(envs, observations[0]) == ">?<?>" and rewards.tolist() == [1.0, 0.0]
        assert infos["reply"].tolist() == ["<?>", None]


class Batched(BatchedWorld):
    async def reply(self, rows, turns, rngs):
        await asyncio.sleep(0.02)
        return [Reply(str(row)) for row in rows][: 1 if turns[0].text == "!" else None]


def test_batched_worlds_may_be_late_too():
    envs = TextVectorEnv(
        3, world=Batched(), prompts=["a"], max_new_tokens=20, world_wait="async", max_turn_tokens=2
    )
    envs.reset(seed=0)
    step(envs, "abc")
    result = step(envs, "..d")
    result, _ = until_told(envs, "eee") if "waiting" in result[4] else (result, 0)
    assert result[4]["reply"].tolist()[:2] == ["0", "1"]


def test_late_replies_that_are_too_few_are_named():
    envs = TextVectorEnv(2, world=Batched(), prompts=["a"], max_new_tokens=20, world_wait="async")
    envs.reset(seed=0)
    step(envs, "!!")
    result = step(envs, "..")
    result, _ = until_told(envs, "ee") if "waiting" in result[4] else (result, 0)
    assert result[3].tolist() == [False, True]
    assert "1 replies for 2 rows" in result[4]["final_info"]["world_error"][1]


def test_what_cannot_wait_is_refused():
    with pytest.raises(ValueError, match="world_wait is 'never'"):
        make(world_wait="never")
    with pytest.raises(ValueError, match="dense"):
        make(reward=dense(lambda batch: np.zeros(len(batch.tokens))))

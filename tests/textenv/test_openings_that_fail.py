"""Worlds that cannot begin in the middle of a run: nothing of other rows is lost."""

import numpy as np
import pytest
from environments import text
from gymnasium.vector import AutoresetMode

from textenv import BatchedWorld, Reply, TextVectorEnv, World
from textenv.errors import WorldError

STOP = 256
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


class Busy(World):
    """Its server refuses as many episodes as `refusals`; it pays 5 for every turn."""

    refusals, drawn = 0, ()

    def begin(self, record, rng):
        self.secret = int(rng.integers(10))
        Busy.drawn = [*Busy.drawn, self.secret]
        if Busy.refusals:
            Busy.refusals -= 1
            raise RuntimeError("server busy")
        return f"{self.secret}>"

    def reply(self, turn, rng):
        return Reply("r", reward=5.0, terminated=turn.text == "e")


@pytest.fixture(autouse=True)
def idle():
    Busy.refusals, Busy.drawn = 0, []


def make(num_envs=2, **options):
    envs = TextVectorEnv(num_envs, world=Busy, max_prompt_tokens=4, max_new_tokens=40, **options)
    envs.reset(seed=0)
    return envs


def step(envs, characters):
    return envs.step([STOP if c == "." else ord(c) for c in characters])


def end_of_row_0(mode, refusals, **options):
    """An environment whose row 0 has ended and cannot begin, and what the last step returned."""
    envs = make(autoreset_mode=mode, **options)
    step(envs, "ex")
    Busy.refusals, Busy.drawn = refusals, []
    result = step(envs, "..")
    assert result[1].tolist() == [5.0, 5.0] and result[2].tolist() == [True, False]
    if mode is AutoresetMode.NEXT_STEP:
        result = step(envs, "xy")
    return envs, result


@pytest.mark.parametrize("mode", MODES)
def test_a_row_that_cannot_begin_waits_and_the_others_go_on(mode):
    envs, (observations, rewards, terminated, truncated, infos) = end_of_row_0(mode, 2)
    assert infos["waiting"].tolist() == [True, False]
    assert "Busy.begin raised RuntimeError: server busy" in infos["begin_error"][0]
    before = text(envs, observations[1])
    observations, rewards, terminated, truncated, infos = step(envs, "xa")  # refused again
    assert infos["waiting"].tolist() == [True, False] and not rewards.any()
    assert not (terminated | truncated).any() and text(envs, observations[1]) == before + "a"
    observations, rewards, *_, infos = step(envs, "x.")
    assert rewards.tolist() == [0.0, 5.0] and "waiting" not in infos
    assert len(set(Busy.drawn)) == 1  # the same draw every time
    assert infos["prompt"][0] == f"{Busy.drawn[0]}>" == text(envs, observations[0])
    observations, *_ = step(envs, "ab")
    assert text(envs, observations[0]) == f"{Busy.drawn[0]}>a"


def test_a_row_that_begins_late_and_one_that_begins_in_the_same_step_are_both_told():
    envs, _ = end_of_row_0(AutoresetMode.SAME_STEP, 2)
    step(envs, "xe")
    observations, *_, infos = step(envs, "x.")
    assert infos["_prompt"].tolist() == [True, True]
    assert [text(envs, o) for o in observations] == infos["prompt"].tolist()
    assert len(set(infos["episode_seed"].tolist())) == 2


@pytest.mark.parametrize("mode", MODES)
def test_where_no_row_can_begin_the_error_is_raised(mode):
    envs, _ = end_of_row_0(mode, 1000)
    for said in ("x.", "xe"):
        step(envs, said)
    _, rewards, *_ = step(envs, "x.")
    assert rewards.tolist() == [0.0, 5.0]  # what was earned is told first
    with pytest.raises(WorldError, match="server busy"):
        step(envs, "xx")
    Busy.refusals = 0
    *_, infos = step(envs, "xx")
    assert infos["_prompt"].all()


@pytest.mark.parametrize("mode", MODES)
def test_a_row_that_waits_for_its_beginning_is_saved(mode):
    envs, _ = end_of_row_0(mode, 1)
    again = make(autoreset_mode=mode)
    again.load_state_dict(envs.state_dict())
    results = [step(one, "xa") for one in (envs, again)]
    (one, *_, infos), (other, *_, others) = results
    assert (one == other).all() and infos["prompt"][0] == others["prompt"][0]
    assert infos["_prompt"].tolist() == [True, False]


def test_a_reset_begins_a_row_that_was_held_up_and_raises_if_it_cannot():
    envs, _ = end_of_row_0(AutoresetMode.SAME_STEP, 2)
    only = {"reset_mask": np.array([True, False])}
    with pytest.raises(WorldError, match="server busy"):
        envs.reset(options=only)
    observations, infos = envs.reset(options=only)
    assert text(envs, observations[0]) == infos["prompt"][0]
    assert "waiting" not in step(envs, "ab")[-1]


def test_a_group_that_was_held_up_shares_its_draw():
    envs = make(2, group_size=2)
    step(envs, "ee")
    Busy.refusals, Busy.drawn = 1, []
    step(envs, "..")
    step(envs, "ab")
    assert len(Busy.drawn) == 3 and len(set(Busy.drawn)) == 1


def test_a_batched_world_may_fail_in_one_row():
    class Half(BatchedWorld):
        failing = False

        def begin(self, rows, records, rngs):
            return [OSError("gone") if self.failing and row == 0 else f"{row}" for row in rows]

        def reply(self, rows, turns, rngs):
            return [Reply(terminated=True, reward=1.0)] * len(rows)

    world = Half()
    envs = TextVectorEnv(2, world=world, max_prompt_tokens=2, max_new_tokens=8)
    envs.reset(seed=0)
    world.failing = True
    observations, rewards, *_, infos = envs.step([STOP, STOP])
    assert rewards.tolist() == [1.0, 1.0] and infos["waiting"].tolist() == [True, False]
    assert text(envs, observations[1]) == "1"
    with pytest.raises(WorldError, match=r"Half.begin raised OSError: gone"):
        envs.reset(seed=0)

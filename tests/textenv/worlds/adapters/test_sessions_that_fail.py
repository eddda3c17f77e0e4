"""Sessions that are waited for: one that fails or hangs takes no other along."""

import asyncio

import numpy as np
import pytest

from textenv import Reply, TextVectorEnv
from textenv.errors import WorldError
from textenv.worlds.adapters.concurrent import ConcurrentWorld

STOP = 256


class Session:
    closed = False

    async def close(self):
        self.closed = True


class Sessions(ConcurrentWorld):
    """Hangs on "h"; resets fail while `busy`."""

    CANNOT_BEGIN = "Wait."
    busy = False

    def __init__(self, timeout=None):
        self.made = []
        super().__init__(self._open, timeout)

    def _open(self):
        self.made.append(Session())
        return self.made[-1]

    async def _reset_one(self, env, seed, options):
        if self.busy and (len(self.made) > 2 or env is self.made[0]):
            raise ConnectionError("busy")
        return "s"

    async def _step_one(self, env, text):
        await asyncio.sleep(30 if text == "h" else 0)
        return Reply("r", reward=1.0, terminated=True)


def play(world, **options):
    envs = TextVectorEnv(2, world=world, max_prompt_tokens=2, max_new_tokens=8, **options)
    envs.reset(seed=0)
    return envs


def test_a_session_that_cannot_begin_leaves_the_others_open():
    world = Sessions()
    envs = play(world)
    world.busy = True
    _, rewards, *_, infos = envs.step([STOP, STOP])
    assert rewards.tolist() == [1.0, 1.0] and infos["waiting"].tolist() == [True, False]
    assert "1 of 2 episodes could not begin: busy. Wait." in infos["begin_error"][0]
    assert [session.closed for session in world.made] == [True, False]
    world.busy = False
    *_, infos = envs.step([97, 97])
    assert infos["_prompt"].tolist() == [True, False] and len(world.made) == 3
    world.busy = True
    with pytest.raises(WorldError, match="could not begin"):
        envs.reset(seed=1)


@pytest.mark.parametrize(
    ("limits", "fail"), [(({"timeout": 0.1}, {}), [0]), (({}, {"reply_timeout": 0.1}), [0, 1])]
)
def test_a_session_that_hangs_is_closed(limits, fail):
    """The world's own limit ends one row; that of the environment ends all that were asked."""
    of_world, of_envs = limits
    world = Sessions(**of_world)
    envs = play(world, **of_envs)
    envs.step([ord("h"), ord("a")])
    *_, truncated, infos = envs.step([STOP, STOP])
    assert np.flatnonzero(truncated).tolist() == fail
    assert "TimeoutError" in infos["final_info"]["world_error"][0]
    assert world.made[0].closed and (1 in fail or not world.made[1].closed)
    _, rewards, *_ = envs.step([STOP, STOP])  # new sessions
    assert rewards.tolist() == [1.0, 1.0]

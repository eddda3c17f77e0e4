"""Environments that are waited for, and how many of them are open."""

import gc

from textenv import Prompt, Reply, Start, TextVectorEnv
from textenv.worlds.adapters.concurrent import ConcurrentWorld

STOP = 256


class Session:
    """Repeats what it hears, and counts how many are open."""

    opened = 0

    def __init__(self):
        Session.opened += 1
        self.heard = ""

    async def close(self):
        Session.opened -= 1


class Sessions(ConcurrentWorld):
    """A session for each row."""

    async def _reset_one(self, env, seed, options):
        env.heard = ""
        return "o"

    async def _step_one(self, env, text):
        env.heard += text
        return Reply(f"[{env.heard}]", terminated=len(env.heard) > 1)


def test_continuations_have_sessions_of_their_own_and_close_them():
    envs = TextVectorEnv(2, world=Sessions(Session), max_prompt_tokens=1, max_new_tokens=40)
    envs.reset()
    assert Session.opened == 2
    start = Start(Prompt("o"), episode_seed=1)
    for _ in range(2):
        other = envs.playing([start] * 2)
        other.reset()
        assert Session.opened == 4
        other.step([ord("a"), ord("b")])
        assert other.step([STOP] * 2)[4]["reply"].tolist() == ["[a]", "[b]"]
        del other
        gc.collect()
        assert Session.opened == 2
    envs.step([ord("c")] * 2)
    assert envs.step([STOP] * 2)[4]["reply"].tolist() == ["[c]"] * 2
    envs.unwrapped._conversations.world.close()
    assert Session.opened == 0

"""Servers of OpenEnv as worlds: one session over the socket for each row."""

from collections.abc import Callable, Mapping
from typing import Any

from textenv.imports import optional
from textenv.worlds.adapters.concurrent import ConcurrentWorld
from textenv.worlds.adapters.stepped import plain
from textenv.worlds.base import Reply


class OpenEnvWorld(ConcurrentWorld):
    """Plays an environment that an OpenEnv server runs, one step a turn.

        world = OpenEnvWorld(
            "http://127.0.0.1:8000",
            describe=lambda observation: observation["message"],
            read=lambda text: {"message": text},
        )

    Each row keeps one session, over the WebSocket: the server's HTTP routes make a new environment
    for each request. All rows that wait are asked at the same time. A server allows one session
    unless its environment class says `SUPPORTS_CONCURRENT_SESSIONS` and it was made with
    `max_concurrent_envs`, at least the number of rows here. Evaluations and continuations in the
    same environment have as many sessions again while they last, so allow twice as many.

    The end is the result's `done`; that of the observation is not sent. OpenEnv does not tell
    whether an end was a time limit, so every end is `terminated`. Its steps cannot be seeded: what
    an environment draws after its reset is equal in a group, if it keeps to the reset's seed.

    Args:
        server: The address of a server, or a function that makes a client, such as an
            environment's own `EnvClient`. A client made of an address gives observations as
            dictionaries.
        describe: Makes the text of an observation.
        read: Makes the action of what was said: a dictionary, or the client's own class; None if
            there is none.
        unreadable: Said if there is no action; the environment is not stepped.
        penalty: Reward of such a turn.
        timeout: Seconds that one reset or step may take.

    Raises:
        MissingExtraError: OpenEnv is not installed.
    """

    CANNOT_BEGIN = (
        "Each row needs a session of its own, and evaluations and continuations as many again: a "
        "server allows as many as its max_concurrent_envs, and more than one only if the "
        "environment's class says SUPPORTS_CONCURRENT_SESSIONS"
    )

    def __init__(
        self,
        server: str | Callable[[], Any],
        *,
        describe: Callable[[Any], str],
        read: Callable[[str], Any],
        unreadable: str = "?",
        penalty: float = 0.0,
        timeout: float = 60.0,
    ):
        super().__init__(_maker(server) if isinstance(server, str) else server, timeout)
        self._describe, self._read = describe, read
        self._unreadable = Reply(unreadable, reward=penalty, info={"unreadable": True})

    async def _reset_one(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        result = await env.reset(seed=seed, **options)
        return self._describe(result.observation)

    async def _step_one(self, env: Any, text: str) -> Reply:
        action = self._read(text)
        if action is None:
            return self._unreadable
        result = await env.step(action)
        return Reply(
            self._describe(result.observation),
            float(result.reward or 0.0),
            terminated=bool(result.done),
            info=plain(result.metadata or {}),
        )


def _maker(server: str) -> Callable[[], Any]:
    with optional("openenv", extra="openenv", purpose="a session with an OpenEnv server"):
        from openenv.core.generic_client import GenericEnvClient

    return lambda: GenericEnvClient(base_url=server)

"""Environments of GEM as worlds: they read and write text already."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from textenv.imports import optional
from textenv.worlds.adapters.step_numbers import global_numbers_kept, seed_global_numbers
from textenv.worlds.adapters.stepped import SteppedWorld, plain
from textenv.worlds.base import Reply


def with_suffix(observation: str, info: Mapping[str, Any]) -> str:
    """The observation, and on a line of its own what GEM asks for next, if it does."""
    suffix = info.get("suffix")
    return f"{observation}\n{suffix}\n" if suffix else f"{observation}\n"


class GemWorld(SteppedWorld):
    r"""Plays an environment of GEM, one step a turn.

        world = GemWorld("game:GuessTheNumber-v0-easy", read=lambda text: rf"\boxed{{{text}}}")

    Rewards and ends are the environment's. Leave GEM's wrappers that repeat earlier turns out: the
    text has them. Its `ToolEnvWrapper` works.

    Args:
        env: The id of an environment, or a function that makes one.
        describe: Makes the text of an observation and its info.
        read: Makes the action of what was said.

    Raises:
        MissingExtraError: GEM is not installed.
        ValueError: There is no environment of this id.
    """

    def __init__(
        self,
        env: str | Callable[[], Any],
        *,
        describe: Callable[[str, Mapping[str, Any]], str] = with_suffix,
        read: Callable[[str], str] = str,
    ):
        super().__init__(_maker(env) if isinstance(env, str) else env)
        self._describe, self._read = describe, read
        with self._numbers_kept():  # many are reset when they are made
            self._make()  # says now if there is no such environment

    def _numbers_kept(self) -> AbstractContextManager[None]:
        return global_numbers_kept()

    def _reset(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        seed_global_numbers(seed)
        return self._describe(*env.reset(seed=seed, **options))

    def _step(self, env: Any, text: str, seed: int) -> Reply:
        seed_global_numbers(seed)
        observation, reward, terminated, truncated, info = env.step(self._read(text))
        return Reply(
            self._describe(observation, info),
            float(reward),
            bool(terminated),
            bool(truncated),
            info=plain(info),
        )


def _maker(name: str) -> Callable[[], Any]:
    with optional("gem-llm", extra="gem", purpose="an environment of GEM"):
        import gem

    return lambda: gem.make(name)

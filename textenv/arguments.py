"""Checks of an environment's arguments: each error names the value and a way out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from textenv.errors import InvalidRewardError, PromptError, ToolError
from textenv.tools.world import Tool, Tools
from textenv.worlds import WorldArgument

WORDS: Mapping[str, Sequence[str | None]] = {
    "budget": ("terminate", "truncate"),
    "render_mode": (None, "ansi"),
    "world_wait": ("all", "async"),
}
"""What arguments that take a word may be."""


def check_words(**given: str | None) -> None:
    """Refuse an argument that is none of its words."""
    for name, word in given.items():
        if word not in WORDS[name]:
            raise ValueError(f"{name} is {word!r}; it must be one of {WORDS[name]}")


def check_episode_steps(max_episode_steps: Any) -> None:
    """Refuse what `gymnasium.make` takes for other environments."""
    if max_episode_steps is not None:
        raise ValueError(
            f"max_episode_steps is {max_episode_steps}; every step is a token, so give "
            f"max_new_tokens={max_episode_steps}, and budget='truncate' for a spent budget to set "
            "`truncated`"
        )


def check_waiting(world_wait: str, terms: Iterable[Any]) -> None:
    """Refuse dense rewards where rows may wait for their world."""
    if world_wait == "async" and any(term.dense for term in terms):
        raise ValueError(
            "a dense reward is asked at every step, and with world_wait='async' an episode may end "
            "in a step that chose nothing: let the world pay, or leave world_wait out"
        )


def check_answers(prompts: Any, reward: Any, *budgets: int | None) -> None:
    """Check the arguments of an environment without a world."""
    if prompts is None:
        raise PromptError("there are no prompts: give prompts=, or a world= that begins episodes")
    if reward is None:
        raise InvalidRewardError("there is no reward: give reward=, or a world= that pays")
    if any(budget is not None for budget in budgets):
        raise ValueError(
            "max_turns and max_turn_tokens are about turns, which only a conversation with a "
            "world= has; max_new_tokens bounds an answer"
        )


def check_turn_limits(
    max_turns: int | None, max_turn_tokens: int | None, reply_timeout: float | None
) -> None:
    """Refuse limits of turns and replies that leave nothing to say or no time to answer."""
    for name, limit in (("max_turns", max_turns), ("max_turn_tokens", max_turn_tokens)):
        if limit is not None and (not isinstance(limit, int | np.integer) or limit < 1):
            raise ValueError(f"{name} is {limit!r}; it must be a whole number from 1 on, or None")
    if reply_timeout is not None and not reply_timeout > 0:
        raise ValueError(f"reply_timeout is {reply_timeout!r}; it must be above 0, or None")


def world_of_tools(tools: Sequence[Tool | str], world: WorldArgument | None) -> Tools:
    """The world that carries out calls of these functions.

    Raises:
        ToolError: There is a world already.
    """
    if world is not None:
        raise ToolError(
            "tools= is a world of its own: leave out world=, or give your world the tools, as a "
            "class derived from textenv.tools.ToolWorld does"
        )
    return Tools(tools)


def check_numbers(num_envs: int, max_new_tokens: int, min_new: int, group_size: int) -> None:
    """Refuse numbers that are not whole or out of their range."""
    for value in (num_envs, max_new_tokens, min_new, group_size):
        if not isinstance(value, int | np.integer):
            raise ValueError(
                f"num_envs, max_new_tokens, min_new_tokens and group_size must be whole numbers; "
                f"one is {value!r}"
            )
    if num_envs < 1 or max_new_tokens < 1:
        raise ValueError(
            f"num_envs is {num_envs} and max_new_tokens {max_new_tokens}; both must be 1 or more"
        )
    if not 0 <= min_new <= max_new_tokens:
        raise ValueError(f"min_new_tokens is {min_new}; it must be within 0..{max_new_tokens}")
    if group_size < 1 or num_envs % group_size:
        raise ValueError(f"group_size {group_size} does not divide num_envs {num_envs}")

"""The field `credit` of algorithms: a function of `agents.returns`, its name, or one's own.

Nothing here imports torch, so the command line can show the names at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from agents import returns
from textenv.errors import OptionError
from textenv.loading import load_function

Credit: TypeAlias = str | Callable[..., Any]
"""A function, or its name: one of those of `agents.returns`, or `module:name`."""

BY_VALUES = ("gae", "gae_by_turn", "gae_by_answer")
BY_COMPARISON = ("by_answer", "by_turn")
BY_TREE = ("tree_ancestors", "tree_changes", "tree_leave_one_out")


def credit_field(names: tuple[str, ...]) -> Any:
    """A field for a credit that may have these names; the first one is the default."""
    others = {"file.py:function": "*:*"}
    metadata = {"names": names, "others": others, "metavar": "FILE:NAME"}
    return dataclasses.field(default=names[0], metadata=metadata)


def check_credit(credit: Credit, names: tuple[str, ...]) -> None:
    """Refuse a credit that is neither a function nor the name of one; for `__post_init__`.

    Raises:
        OptionError: It is something else.
        ObjectNotFoundError: The module or file, or the function in it, does not exist.
    """
    # Ours of the other kind: values and comparisons are given different things.
    others = {*BY_VALUES, *BY_COMPARISON, *BY_TREE} - {*names}
    known = {name for name in others if credit in (name, getattr(returns, name))}
    if (callable(credit) and not known) or credit in names:
        return
    if known or not isinstance(credit, str) or ":" not in credit:
        raise OptionError(
            f"credit is {credit!r}; it must be a function such as returns.{names[1]}, its name "
            f"(one of {', '.join(names)}), or file.py:function"
        )
    credit_function(credit)  # found or missed now, and not after the first rollout


def credit_function(credit: Credit) -> Callable[..., Any]:
    """The function that a credit is, or is the name of.

    Raises:
        ObjectNotFoundError: The module or file, or the function in it, does not exist.
    """
    if callable(credit):
        return credit
    if ":" in credit:
        return load_function(credit, "the credit", "a rollout's arrays")
    found: Callable[..., Any] = getattr(returns, credit)
    return found


def steps_of(credit: Credit) -> Callable[..., Any] | None:
    """The attribute `begins` of a credit: where its steps begin. None if it has none."""
    function = credit_function(credit)
    while isinstance(function, functools.partial) and not hasattr(function, "begins"):
        function = function.func
    found: Callable[..., Any] | None = getattr(function, "begins", None)
    return found

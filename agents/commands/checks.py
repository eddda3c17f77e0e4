"""A command line read before it is parsed, so that each mistake is one line with a way out."""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from agents.commands.options import Group, Option
from agents.optimisation import bounds
from textenv.errors import OptionError

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
    NoneType: "null",
}
"""How a message calls a type."""


def check_line(line: Sequence[str], groups: Iterable[Group], program: str) -> None:
    """Refuse a line that cannot be used.

    Args:
        line: What follows the command's name.
        groups: All options of the command.
        program: The command, for messages.

    Raises:
        OptionError: An option is unknown, is missing, lacks its value or has one that it does not
            take; or an argument belongs to no option.
    """
    options = [option for group in groups for option in group.options]
    chosen = {f"--{group.name}": group.choice for group in groups if group.choice is not None}
    flags = {o.flag: o for o in options if not o.metadata.get("positional")}
    places = [option for option in options if option.metadata.get("positional")]
    given, alone = set(), []
    words = iter(line)
    for word in words:
        if not word.startswith("--"):
            alone.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        given.add(flag)
        if flag in chosen:  # the name itself was looked up before
            value = value if equals else next(words, "")
            continue
        if flag not in flags:
            near = difflib.get_close_matches(flag, [*flags, *chosen], 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise OptionError(f"there is no option {flag}: {hint}{program} --help lists them")
        option = flags[flag]
        if option.type is bool:
            continue
        if not equals:
            value = next(words, "--")
            if value.startswith("--"):
                raise OptionError(f"{flag} needs a value: {_wanted(option)}")
        _check_value(option, value)
    for option in flags.values():
        if option.default is MISSING and option.flag not in given:
            raise OptionError(f"{option.flag} must be given: {program} --help says more")
    _check_places(alone, places, program)


def check_bounds(group: Group) -> None:
    """Refuse numbers out of their bounds.

    Raises:
        OptionError: One is.
    """
    for option in group.options:
        items = option.default if isinstance(option.default, list) else [option.default]
        for value in items:
            if isinstance(value, int | float) and not isinstance(value, bool):
                _check_number(option, value)


def check_name(option: Option, name: Any, what: str) -> None:
    """Refuse a name that the option does not take; `what` is what a message calls the option.

    Raises:
        OptionError: It does not take it.
    """
    if not option.names or name is None or option.knows(str(name)):
        return
    near = difflib.get_close_matches(str(name), option.names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise OptionError(f"{what} is {str(name)!r}; it must be {option.choices}{hint}")


def _check_value(option: Option, text: str) -> None:
    if text == "None" and NoneType in get_args(option.type):
        return
    check_name(option, text, option.flag)
    kind = next((kind for kind in option.kinds if kind in (int, float)), None)
    if kind is None or str in option.kinds:  # what takes both looks itself
        return
    try:
        value = kind(text)
    except ValueError:
        wanted = _wanted(option)
        raise OptionError(f"{option.flag} is {text!r}; it must be {wanted}") from None
    _check_number(option, value)


def _check_number(option: Option, value: float) -> None:
    if not math.isfinite(value):
        raise OptionError(f"{option.flag} is {value}; it must be a finite number")
    if not bounds.fits(value, option.metadata):
        wanted = bounds.words(option.metadata)
        raise OptionError(f"{option.flag} is {value}; it must be {wanted}")


def _check_places(alone: Sequence[str], places: Sequence[Option], program: str) -> None:
    """Refuse what stands on the line without a flag, if there is too little or too much of it."""
    wanted = [str(option.metadata["metavar"]) for option in places]
    several = any(isinstance(option.default, list) or _is_list(option) for option in places)
    if len(alone) < len(wanted):
        raise OptionError(f"{wanted[len(alone)]} must be given: {program} --help says more")
    if len(alone) > len(wanted) and not several:
        raise OptionError(
            f"{alone[len(wanted)]!r} belongs to no option: {program} --help lists them"
        )


def _is_list(option: Option) -> bool:
    return getattr(option.type, "__origin__", None) is list


def _wanted(option: Option) -> str:
    """What an option takes, in words."""
    if option.choices:
        return option.choices
    numbers = bounds.words(option.metadata)
    kind = " or ".join(WORDS.get(kind, str(kind)) for kind in option.kinds)
    return f"{kind}, {numbers}" if numbers else kind

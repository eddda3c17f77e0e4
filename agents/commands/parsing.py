"""From a command line, or a configuration file, to settings.

Tyro parses the line: it is given one dataclass made of the groups in `options`.
"""

import dataclasses
import difflib
import inspect
import json
import shutil
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro

from agents.commands.options import Choice, Common, Group, Option, groups_of, options_of, title_of
from textenv.errors import OptionError

Settings = TypeVar("Settings")


def parse(
    settings: type[Settings], arguments: Sequence[str], program: str, choices: Mapping[str, str]
) -> tuple[Settings, set[str]]:
    """Settings from a command line.

    Args:
        settings: A dataclass of groups.
        arguments: What follows the command's name.
        program: The command, for messages.
        choices: Classes that the settings begin with, by field.

    Returns:
        The settings, and the names of the fields that were given.

    Raises:
        OptionError: A value is out of its bounds, or the file of `--config` cannot be used.
        SystemExit: Help was asked for (0), or the line cannot be understood (2).
    """
    given = _given(arguments)
    file = _value_of("--config", arguments)
    stored = {} if file is None else read_config(Path(file))
    chosen = dict(choices)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]  # a dataclass
        if isinstance(field.default, Choice):
            name = _value_of("--" + field.name.replace("_", "-"), arguments)
            name = name or stored.get(field.name)
            if name is not None:
                chosen[field.name] = name
    groups = _with_values(groups_of(settings, chosen), stored, f"the file {file}")
    common = Group("common", Common, title_of(Common), options_of(Common))
    line: Any = tyro.cli(
        _as_one_class([*groups, common], settings),
        prog=program,
        description=_description(settings),
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    typed = [_with_line(group, getattr(line, group.name)) for group in groups]
    for group in typed:
        _check_bounds(group)
    return _build(settings, typed), given


def from_flat(settings: type[Settings], values: Mapping[str, Any], source: str) -> Settings:
    """Settings from what `to_flat` gave.

    Raises:
        OptionError: A name is unknown, or one is missing; `source` says where it was read.
    """
    choices = {
        field.name: values[field.name]
        for field in dataclasses.fields(settings)  # type: ignore[arg-type]  # a dataclass
        if isinstance(field.default, Choice) and field.name in values
    }
    groups = _with_values(groups_of(settings, choices), values, source)
    for option in (option for group in groups for option in group.options):
        if option.default is MISSING:
            raise OptionError(f"{source} lacks {option.name!r}")
    return _build(settings, groups)


def to_flat(settings: Any) -> dict[str, Any]:
    """All options by name, as JSON holds them; a choice is its name and its fields."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        group = getattr(settings, field.name)
        if isinstance(group, Choice):
            flat |= {field.name: group.name, **group.fields}
        else:
            flat |= {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
    return flat


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a .json or .toml file, by name; hyphens may stand for underscores.

    Raises:
        OptionError: The file cannot be read, or holds something else than names and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:  # both parsers raise ValueErrors
        raise OptionError(f"the configuration {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise OptionError(f"the configuration {path} is not an object of names and values")
    return {name.replace("-", "_"): value for name, value in found.items()}


def _with_values(groups: Sequence[Group], values: Mapping[str, Any], source: str) -> list[Group]:
    """The groups with these values for defaults.

    Raises:
        OptionError: A name is unknown, or a value has the wrong type.
    """
    known = {option.name for group in groups for option in group.options}
    known |= {group.name for group in groups if group.choice is not None}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise OptionError(f"{source} sets {name!r}, which is not an option here{hint}")

    def with_value(option: Option) -> Option:
        if option.name not in values:
            return option
        return option._replace(default=_typed(option, values[option.name], source))

    return [g._replace(options=[with_value(option) for option in g.options]) for g in groups]


def _with_line(group: Group, line: Any) -> Group:
    """The group with what was typed for defaults; an empty list was not typed.

    Raises:
        OptionError: It should have been.
    """

    def with_value(option: Option) -> Option:
        value = getattr(line, option.name)
        if value == [] and option.default is MISSING:
            name = option.metadata["metavar"] if option.metadata.get("positional") else option.flag
            raise OptionError(f"{name} must be given")
        return option if value == [] else option._replace(default=value)

    return group._replace(options=[with_value(option) for option in group.options])


def _as_one_class(groups: Sequence[Group], settings: type) -> type:
    """A dataclass that tyro understands: a field a group, each a dataclass of its options."""
    parts: list[Any] = []
    for group in groups:
        if group.choice is not None:
            names = _field(settings, group.name).metadata["names"]
            text = f"Which one: {', '.join(names)}; or file.py:Name of your own."
            hint = Annotated[str, tyro.conf.arg(name=group.name, help=text, metavar="NAME")]
            parts.append((f"{group.name}_name", hint, dataclasses.field(default=group.choice)))
        options = [(o.name, _annotated(o), _default(o.default)) for o in group.options]
        made = dataclasses.make_dataclass(group.cls.__name__, options, kw_only=True)
        made.__doc__ = group.title
        parts.append((group.name, made, dataclasses.field()))
    return dataclasses.make_dataclass(settings.__name__, parts, kw_only=True)


def _annotated(option: Option) -> Any:
    """The option's type with what tyro is to know of it."""
    # What is not given is not worth a word; other defaults are shown.
    hint = "" if option.default is None or option.default is False else None
    if option.metadata.get("positional"):
        hint = "(required)"
    elif isinstance(option.default, list):
        hint = f"(default: {' '.join(map(str, option.default))})"
    argument = tyro.conf.arg(help=option.help, metavar=_metavar(option), help_behavior_hint=hint)
    if option.metadata.get("positional"):
        return Annotated[option.type, tyro.conf.Positional, argument]
    if get_origin(option.type) is list:
        return Annotated[option.type, tyro.conf.UseAppendAction, argument]
    return Annotated[option.type, argument]


def _default(value: Any) -> Any:
    if value is MISSING:
        return dataclasses.field()
    if isinstance(value, list):  # tyro would append what is typed to the default
        return dataclasses.field(default_factory=list)
    return dataclasses.field(default=value)


def _metavar(option: Option) -> str | None:
    """What stands for the value in the help."""
    if "metavar" in option.metadata:
        return str(option.metadata["metavar"])
    types = [part for part in get_args(option.type) or (option.type,) if part is not type(None)]
    names = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
    if get_origin(option.type) is Literal or len(types) != 1 or types[0] not in names:
        return None
    return names[types[0]]


def _description(settings: type) -> str:
    """The docstring, filled to the terminal's width.

    Tyro joins lines that begin with a letter and does not break them again, so paragraphs after the
    first are indented.
    """
    width = min(shutil.get_terminal_size().columns, 100)
    first, *others = inspect.cleandoc(settings.__doc__ or "").split("\n\n")
    filled = [textwrap.indent(textwrap.fill(" ".join(p.split()), width - 2), "  ") for p in others]
    return "\n\n".join([" ".join(first.split()), *filled])


def _build(settings: type[Settings], groups: Sequence[Group]) -> Settings:
    built: dict[str, Any] = {}
    for group in groups:
        values = {option.name: option.default for option in group.options}
        built[group.name] = Choice(group.choice, values) if group.choice else group.cls(**values)
    return settings(**built)


def _typed(option: Option, value: Any, source: str) -> Any:
    """A value of JSON as the field has it: texts become paths, whole numbers fractions.

    Raises:
        OptionError: It is of another type.
    """
    if get_origin(option.type) is list and isinstance(value, list):
        one = option._replace(type=get_args(option.type)[0])
        return [_typed(one, item, source) for item in value]
    if get_origin(option.type) is Literal:
        if value in get_args(option.type):
            return value
        raise OptionError(
            f"{source} sets {option.name} to {value!r}; it must be one of "
            f"{', '.join(map(str, get_args(option.type)))}"
        )
    for hint in get_args(option.type) or (option.type,):
        if hint is Path and isinstance(value, str):
            return Path(value)
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
    raise OptionError(f"{source} sets {option.name} to {value!r}, which is not {option.type}")


def _check_bounds(group: Group) -> None:
    for option in group.options:
        value = option.default
        if value is None:
            continue
        least, most = (option.metadata.get(name) for name in ("minimum", "maximum"))
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise OptionError(f"{option.flag} is {value}; it must be {bounds}")


def _field(settings: type, name: str) -> Any:
    return next(f for f in dataclasses.fields(settings) if f.name == name)


def _given(arguments: Sequence[str]) -> set[str]:
    """Names of the options on a command line."""
    flags = (a.split("=")[0] for a in arguments if a.startswith("--"))
    return {flag[2:].replace("-", "_") for flag in flags}


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What follows the last `flag`: it decides which other options there are."""
    found = None
    for place, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            found = argument.split("=", 1)[1]
        elif argument == flag and place + 1 < len(arguments):
            found = arguments[place + 1]
    return found

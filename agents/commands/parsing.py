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
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro

from agents.commands.checks import WORDS, check_bounds, check_line, check_name
from agents.commands.options import (
    Choice,
    Common,
    Group,
    Option,
    choices,
    groups_of,
    options_of,
    title_of,
)
from textenv.errors import MalformedRecordError, OptionError
from textenv.files import read_text

Settings = TypeVar("Settings")

PLACES = ("FILE", "FILE...", "FOLDER", "POLICY...", "FILE:NAME", "FILE[:WEIGHT]")
"""What stands for a path in the help of an option."""


def parse(
    settings: type[Settings],
    arguments: Sequence[str],
    program: str,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> tuple[Settings, set[str]]:
    """Settings from a command line.

    Args:
        settings: A dataclass of groups.
        arguments: What follows the command's name.
        program: The command, for messages.
        complete: Given all names that are set, by a file or on the line, returns them with what
            follows from them.

    Returns:
        The settings, and the names of the fields that were given.

    Raises:
        OptionError: An option is unknown, is missing or lacks its value; a value is out of its
            bounds or none of its names; or the file of `--config` cannot be used.
        SystemExit: Help was asked for.
    """
    line = _typed_on(arguments)
    stored = read_config(Path(line["config"])) if line.get("config") else {}
    completed = complete({**stored, **line})
    # What stands on the line is left to tyro.
    stored = {n: stored.get(n, completed[n]) for n in completed if n in stored or n not in line}
    chosen = _choices(settings, completed)
    groups = _with_values(groups_of(settings, chosen), stored, f"the file {line.get('config')}")
    common = Group("common", Common, title_of(Common), options_of(Common))
    if not {"-h", "--help"} & set(arguments):
        check_line(arguments, [*groups, common], program)
    parsed: Any = tyro.cli(
        _as_one_class([*groups, common], settings),
        prog=program,
        description=_description(settings),
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    typed = [_with_line(group, getattr(parsed, group.name)) for group in groups]
    for group in typed:
        check_bounds(group)
    return _build(settings, typed), set(line)


def from_flat(settings: type[Settings], values: Mapping[str, Any], source: str) -> Settings:
    """Settings from what `to_flat` gave.

    Raises:
        OptionError: A name is unknown, or one is missing; `source` says where it was read.
    """
    choices = _choices(settings, values)
    groups = _with_values(groups_of(settings, choices), values, source)
    for option in (option for group in groups for option in group.options):
        if option.default is MISSING:
            raise OptionError(f"{source} lacks {option.name!r}")
    for group in groups:
        check_bounds(group)
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


def to_kept(settings: Any) -> dict[str, Any]:
    """As `to_flat`, with absolute paths: what a run keeps means the same in every folder."""
    flat = to_flat(settings)
    for name in places_of(settings):
        several = isinstance(flat[name], list)
        places = [_absolute(place) for place in (flat[name] if several else [flat[name]])]
        flat[name] = places if several else places[0]
    return flat


def places_of(settings: Any) -> set[str]:
    """The names of the options that name files or folders, or functions in files."""
    flat = to_flat(settings)
    choices = {f.name: flat[f.name] for f in dataclasses.fields(settings) if f.name in flat}
    options = (o for group in groups_of(type(settings), choices) for o in group.options)
    return {
        option.name
        for option in options
        if option.metadata.get("metavar") in PLACES
        and flat[option.name] not in (None, *option.names)
    }


def _absolute(place: str | Path) -> str | Path:
    """A path, or the path in "file.py:name", made absolute; names on the hub and others stay."""
    if isinstance(place, Path):
        return place.expanduser().resolve()
    file, colon, name = place.rpartition(":")
    if not file.endswith(".py"):
        file, colon, name = place, "", ""
    path = Path(file).expanduser()
    return f"{path.resolve()}{colon}{name}" if path.exists() else place


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a .json or .toml file, by name; hyphens may stand for underscores.

    Raises:
        OptionError: The file cannot be read, or holds something else than names and values.
    """
    try:
        text = read_text(path, "settings")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except MalformedRecordError as error:
        raise OptionError(str(error)) from error
    except ValueError as error:  # of either parser
        raise OptionError(f"the configuration {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise OptionError(f"the configuration {path} is not an object of names and values")
    return {name.replace("-", "_"): value for name, value in found.items()}


def _with_values(groups: Sequence[Group], values: Mapping[str, Any], source: str) -> list[Group]:
    """The groups with these values for defaults.

    Raises:
        OptionError: A name is unknown, or a value has the wrong type.
    """
    names = [option.name for group in groups for option in group.options]
    if twice := {name for name in names if names.count(name) > 1}:
        chosen = ", ".join(group.choice for group in groups if group.choice)
        raise OptionError(
            f"{chosen} has fields that are options already: {', '.join(sorted(twice))}; give them "
            "other names"
        )
    known = {*names}
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
    nothing = option.default is None or option.default is False or option.default == []
    hint = "" if nothing else None
    if option.metadata.get("positional"):
        hint = "(required)"
    elif isinstance(option.default, list) and option.default:
        hint = f"(default: {' '.join(map(str, option.default))})"
    # Tyro shows the names of a Literal by itself.
    names = f" Takes {option.choices}." if "names" in option.metadata else ""
    argument = tyro.conf.arg(
        help=option.help + names, metavar=_metavar(option), help_behavior_hint=hint
    )
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
    outer = get_origin(option.type)
    if outer in (list, tuple):
        one = option._replace(type=get_args(option.type)[0])
        items = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return outer(_typed(one, item, source) for item in items)
    check_name(option, value, f"{source}: {option.name}")
    if outer is Literal:
        return value
    kinds = get_args(option.type) if outer in (Union, types.UnionType) else (option.type,)
    for hint in kinds:
        if hint is Path and isinstance(value, str):
            return Path(value)
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
    wanted = " or ".join(WORDS.get(hint, str(hint)) for hint in kinds)
    raise OptionError(f"{source} sets {option.name} to {value!r}; it must be {wanted}")


def _field(settings: type, name: str) -> Any:
    return next(f for f in dataclasses.fields(settings) if f.name == name)


def _choices(settings: type, values: Mapping[str, Any]) -> dict[str, str]:
    """Names of the classes that were chosen, by field.

    Raises:
        OptionError: One is not a name.
    """
    chosen = {}
    for field in dataclasses.fields(settings):
        if isinstance(field.default, Choice) and field.name in values:
            name = values[field.name]
            if not isinstance(name, str):
                raise OptionError(f"{field.name} is {name!r}; it must be a name")
            if not name or name.startswith("--"):
                known = choices(field.metadata["names"], ["file.py:Name"])
                raise OptionError(f"--{field.name} needs a value: {known}")
            chosen[field.name] = name
    return chosen


def _typed_on(line: Sequence[str]) -> dict[str, str]:
    """The options on a command line, by name, with what follows them; the last one counts."""
    found = {}
    for place, argument in enumerate(line):
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            if not equals:
                value = line[place + 1] if place + 1 < len(line) else ""
            found[flag[2:].replace("-", "_")] = value
    return found

"""The options of a command, read from the fields of dataclasses.

A command's settings are one dataclass of groups, each a dataclass of its own. A field of a group is
an option: its name, type and default stand in the field, its help in the docstring under
"Attributes". Nothing here imports torch.
"""

import dataclasses
import fnmatch
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import docstring_parser

from agents.optimisation import bounds

_NONE = type(None)


@dataclass(frozen=True)
class Common:
    """For every command.

    Attributes:
        config: Read settings from this file, .json or .toml; options given beside it win.
        debug: Show where an error comes from.
    """

    config: Path | None = dataclasses.field(default=None, metadata={"metavar": "FILE"})
    debug: bool = False


@dataclass(frozen=True)
class Choice:
    """One class out of several, by its name, and values for its fields.

    Attributes:
        name: Which class.
        fields: Values of its fields; the others keep their defaults.
    """

    name: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Option(NamedTuple):
    """One field of a group.

    Attributes:
        name: Name of the field; the option has hyphens for its underscores.
        type: What it takes.
        default: `MISSING` where it must be given.
        help: Its line in the docstring.
        metadata: The field's own: its bounds, `metavar`, `positional`, `names`, `others`.
    """

    name: str
    type: Any
    default: Any
    help: str
    metadata: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """What is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of one value, `NoneType` left out; a list takes several values."""
        hint = get_args(self.type)[0] if get_origin(self.type) is list else self.type
        union = get_origin(hint) in (Union, types.UnionType)
        return tuple(kind for kind in (get_args(hint) if union else (hint,)) if kind is not _NONE)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that it takes; empty if it takes something else."""
        literal = next((kind for kind in self.kinds if get_origin(kind) is Literal), None)
        return tuple(self.metadata.get("names", get_args(literal) if literal else ()))

    @property
    def choices(self) -> str:
        """The names that it takes, and what else, in words; empty if it takes no names."""
        return choices(self.names, self.metadata.get("others", {}))

    def knows(self, name: str) -> bool:
        """Whether `name` is one that it takes, or has the form of something else that it takes."""
        patterns = self.metadata.get("others", {}).values()
        return name in self.names or any(fnmatch.fnmatchcase(name, form) for form in patterns)


class Group(NamedTuple):
    """The options that come from one dataclass.

    Attributes:
        name: Field of the settings that holds it.
        cls: The dataclass.
        title: First sentence of its docstring.
        options: Its fields.
        choice: Name of the class, if it is one out of several.
    """

    name: str
    cls: type
    title: str
    options: list[Option]
    choice: str | None = None


def setting(default: Any = MISSING, **metadata: Any) -> Any:
    """A field of a group with more than a default.

    Args:
        default: Left out where the option must be given.
        **metadata: The bounds of a number, see `agents.optimisation.bounds`; `metavar`, what stands
            for the value in the help; `positional=True` for an argument without a flag; `names`,
            those that a text may be, and `others`, what else it may be, with a pattern of each.
    """
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def one_of(
    load: Callable[[str], type],
    names: Iterable[str],
    default: str,
    defaults: Mapping[str, Mapping[str, Any]],
) -> Any:
    """A group that is one class out of several; its name is an option of its own.

    Args:
        load: From a name to the class.
        names: Those to show.
        default: Which one, if none is named.
        defaults: By name, defaults that differ from those of the class.
    """
    metadata = {"load": load, "names": tuple(names), "defaults": defaults}
    return dataclasses.field(default=Choice(default), metadata=metadata)


def choices(names: Iterable[str], others: Iterable[str] = ()) -> str:
    """What may be chosen, in words.

    >>> choices(["afinn", "textblob"], ["file.py:function"])
    'afinn, textblob or file.py:function'
    """
    *first, last = [*names, *others] or [""]
    return " or ".join([", ".join(first), last]) if first else last


# -------------------------------------------------------------------- what there is


def groups_of(settings: type, choices: Mapping[str, str] | None = None) -> list[Group]:
    """The groups of a command's settings.

    Args:
        settings: A dataclass of groups.
        choices: Names of the classes that were chosen, by field; the default's otherwise.
    """
    groups = []
    hints = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        default = None if field.default is MISSING else field.default
        cls, choice, values = hints[field.name], None, {}
        if isinstance(default, Choice):
            choice = (choices or {}).get(field.name, default.name)
            cls = field.metadata["load"](choice)
            values = field.metadata["defaults"].get(choice, {})
        elif default is not None:
            values = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
        groups.append(Group(field.name, cls, title_of(cls), options_of(cls, values), choice))
    return groups


def options_of(cls: type, values: Mapping[str, Any] | None = None) -> list[Option]:
    """The options of a group, those of its base classes included.

    Args:
        cls: A dataclass.
        values: Defaults that differ from those of the class, by name.
    """
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for line in docstring_parser.parse(base.__doc__ or "").params:
            helps[line.arg_name] = " ".join((line.description or "").split())
    hints, found = get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        if field.metadata.get("from_code"):
            continue
        made = field.default_factory
        default = field.default if made is MISSING else made()
        default = (values or {}).get(field.name, default)
        hint = _without_functions(hints[field.name])
        if hint is None:
            continue
        metadata = bounds.metadata_of(cls, field.name)
        found.append(Option(field.name, hint, default, helps.get(field.name, ""), metadata))
    return found


def title_of(cls: type) -> str:
    """The first sentence of a docstring."""
    return docstring_parser.parse(cls.__doc__ or "").short_description or ""


def _without_functions(hint: Any) -> Any:
    """A type without functions, which are given from Python only; None if nothing is left."""
    if get_origin(hint) is Callable:
        return None
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    return Union[tuple(part for part in get_args(hint) if get_origin(part) is not Callable)]  # noqa: UP007

"""The JSON schema of a Python function, from its type hints and its docstring.

The form is OpenAI's, and the rules are those of `transformers.utils.get_json_schema`, which chat
templates expect; that library is not needed here. Arguments that cannot be given by name
(`*args`, `**kwargs`, positional-only ones) are refused.
"""

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from textenv.errors import ToolError

Schema = dict[str, Any]

SCALARS: dict[type, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
}
"""JSON's name of each Python type that can stand in an `enum`."""

_CONTAINERS: dict[type, str] = {list: "array", tuple: "array", dict: "object"}
_HEADINGS = ("Args:", "Returns:", "Raises:")
_ARGUMENT = re.compile(r"(\w+)(?: \(.*?\))?:(?:\s+(.*)|$)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def function_schema(function: Callable[..., Any]) -> Schema:
    '''The schema of a function or method, as a chat template wants it.

    Every argument needs a type hint and a line in the docstring's `Args:`. A line may end in
    `(choices: ["a", "b"])`, which becomes an `enum`.

    >>> def double(number: int) -> int:
    ...     """Double a number.
    ...
    ...     Args:
    ...         number: Any whole number.
    ...     """
    ...     return 2 * number
    >>> function_schema(double)["function"]["parameters"]["properties"]
    {'number': {'type': 'integer', 'description': 'Any whole number.'}}

    Raises:
        ToolError: There is no docstring, an argument has no type hint or no description, a type has
            no schema, or an argument cannot be given by name.
    '''
    name = getattr(function, "__name__", None)
    if not callable(function) or name is None or isinstance(function, type):
        raise ToolError(f"{function!r} is not a tool: pass a function, or a method of an object")
    doc = inspect.getdoc(function)
    if not doc:
        raise ToolError(
            f"the tool {name!r} has no docstring: write what it does, and each argument under "
            "'Args:', for the model to read"
        )
    description, described, returns = _sections(doc.strip())
    hints = _hints(function, name)
    properties: dict[str, Schema] = {}
    required = []
    for argument in _arguments(function, name):
        if argument.annotation is inspect.Parameter.empty:
            raise ToolError(f"argument {argument.name!r} of the tool {name!r} has no type hint")
        if argument.name not in described:
            raise ToolError(
                f"argument {argument.name!r} of the tool {name!r} has no line under 'Args:' in the "
                "docstring"
            )
        schema = _type_schema(hints[argument.name], f"argument {argument.name!r} of {name!r}")
        text = described[argument.name]
        if choices := _CHOICES.search(text):
            schema["enum"] = _choices(choices[1], name)
            text = text[: choices.start()].strip()
        properties[argument.name] = {**schema, "description": text}
        if argument.default is inspect.Parameter.empty:
            required.append(argument.name)
    parameters: Schema = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    made: Schema = {"name": name, "description": description, "parameters": parameters}
    made |= _return_schema(hints, returns)
    return {"type": "function", "function": made}


def _arguments(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    arguments = list(inspect.signature(function).parameters.values())
    if arguments and arguments[0].name in ("self", "cls"):
        if arguments[0].annotation is inspect.Parameter.empty:
            del arguments[0]
    for argument in arguments:
        if argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            raise ToolError(
                f"argument {argument} of the tool {name!r} cannot be given by name, and models "
                "give arguments by name: write each one out"
            )
    return arguments


def _hints(function: Callable[..., Any], name: str) -> Mapping[str, Any]:
    try:
        return get_type_hints(function)
    except Exception as error:  # whatever a hint written as a string raises
        raise ToolError(f"a type hint of the tool {name!r} cannot be read: {error}") from error


def _return_schema(hints: Mapping[str, Any], returns: str | None) -> Schema:
    if "return" not in hints:
        return {}
    try:
        schema = _type_schema(hints["return"], "")
    except ToolError:  # the model never writes it
        return {}
    return {"return": schema if returns is None else {**schema, "description": returns}}


# ---------------------------------------------------------------- the docstring


def _sections(doc: str) -> tuple[str, dict[str, str], str | None]:
    """What a docstring says of the function, of each argument and of what is returned."""
    parts: dict[str, list[str]] = {"": []}
    heading = ""
    for line in doc.splitlines():
        if line.strip() in _HEADINGS:
            heading = line.strip()
            parts[heading] = []
        else:
            parts[heading].append(line)
    returns = "\n".join(parts["Returns:"]).strip() if "Returns:" in parts else None
    return "\n".join(parts[""]).strip(), _argument_lines(parts.get("Args:", [])), returns


def _argument_lines(lines: Sequence[str]) -> dict[str, str]:
    described: dict[str, str] = {}
    name, indent = "", None
    for line in filter(str.strip, lines):
        depth = len(line) - len(line.lstrip())
        begins = _ARGUMENT.match(line.strip())
        if begins and (indent is None or depth <= indent):
            name, indent = begins[1], depth
            described[name] = begins[2] or ""
        elif name:
            described[name] = f"{described[name]} {line.strip()}".strip()
    return described


def _choices(text: str, name: str) -> list[Any]:
    try:
        choices = json.loads(text)
        return [choice.strip() if isinstance(choice, str) else choice for choice in choices]
    except (ValueError, TypeError) as error:
        raise ToolError(
            f"the choices {text} of the tool {name!r} are not a JSON list: write "
            '(choices: ["a", "b"])'
        ) from error


# ---------------------------------------------------------------- type hints


def _type_schema(hint: Any, where: str) -> Schema:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is None:
        if isinstance(hint, type) and issubclass(hint, Enum):
            return _enum([member.value for member in hint], hint, where)
        if hint in SCALARS or hint in _CONTAINERS:
            return {"type": (SCALARS | _CONTAINERS)[hint]}
    elif origin in (Union, types.UnionType):
        return _union(args, where)
    elif origin is Literal:
        return _enum(list(args), hint, where)
    elif origin is list:
        return {"type": "array", **({"items": _type_schema(args[0], where)} if args else {})}
    elif origin is dict:
        values = {"additionalProperties": _type_schema(args[1], where)} if args else {}
        return {"type": "object", **values}
    elif origin is tuple:
        if not args:
            return {"type": "array"}
        if len(args) > 1 and ... not in args:
            return {"type": "array", "prefixItems": [_type_schema(arg, where) for arg in args]}
    raise ToolError(
        f"the type {hint!r} of {where} has no JSON schema: use int, float, str, bool, an Enum, "
        "Literal, list, dict, a tuple of several types, or unions of them"
    )


def _union(args: Sequence[Any], where: str) -> Schema:
    kinds = [_type_schema(arg, where) for arg in args if arg is not type(None)]
    if len(kinds) == 1:
        schema = kinds[0]
    elif all(kind.keys() == {"type"} and isinstance(kind["type"], str) for kind in kinds):
        names = sorted({kind["type"] for kind in kinds})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": kinds}
    return {**schema, "nullable": True} if type(None) in args else schema


def _enum(values: list[Any], hint: Any, where: str) -> Schema:
    if not values or any(type(value) not in SCALARS for value in values):
        raise ToolError(
            f"the type {hint!r} of {where} has no value, or one that JSON cannot hold: use texts, "
            "numbers and booleans"
        )
    names = list(dict.fromkeys(SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}

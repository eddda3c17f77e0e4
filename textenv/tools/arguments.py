"""Checks what a model has written against the schema of the tool that it calls."""

from collections.abc import Mapping
from typing import Any

from textenv.records import short
from textenv.tools.calls import Call
from textenv.tools.schema import Schema


def bound(call: Call, schema: Schema) -> dict[str, Any]:
    """The arguments of a call by name.

    Args:
        call: The call; arguments that it gives by their place get their names.
        schema: That of the tool, from `function_schema`.

    Raises:
        ValueError: Arguments are missing, unknown, given twice or of another type; the message is
            for the model.
    """
    parameters = schema["function"]["parameters"]
    known = parameters["properties"]
    if len(call.positional) > len(known):
        raise ValueError(f"{call.name} takes {len(known)} arguments, not {len(call.positional)}")
    arguments = dict(zip(known, call.positional, strict=False))
    if twice := arguments.keys() & call.arguments.keys():
        raise ValueError(f"{call.name} got the argument {min(twice)} twice")
    arguments |= call.arguments
    if unknown := [name for name in arguments if name not in known]:
        raise ValueError(
            f"{call.name} has no argument {unknown[0]}; its arguments are {', '.join(known)}"
            if known
            else f"{call.name} takes no arguments"
        )
    if missing := [name for name in parameters.get("required", ()) if name not in arguments]:
        raise ValueError(f"{call.name} needs the argument {' and '.join(missing)}")
    for name, value in arguments.items():
        if problem := mismatch(value, known[name], name):
            raise ValueError(problem)
    return arguments


def mismatch(value: Any, schema: Schema, name: str) -> str:
    """Why `value` is not of the type in `schema`; empty if it is.

    >>> mismatch("7", {"type": "integer"}, "count")
    "count must be integer, not '7'"
    """
    if value is None and schema.get("nullable"):
        return ""
    if "anyOf" in schema:
        problems = [mismatch(value, kind, name) for kind in schema["anyOf"]]
        return "" if "" in problems else "; or ".join(dict.fromkeys(problems))
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{name} must be {' or '.join(kinds)}, not {short(value)}"
    if "enum" in schema and not any(_same(value, choice) for choice in schema["enum"]):
        return f"{name} must be one of {schema['enum']}, not {short(value)}"
    if isinstance(value, list):
        return _items(value, schema, name)
    if isinstance(value, Mapping) and "additionalProperties" in schema:
        kind = schema["additionalProperties"]
        return next(
            filter(None, (mismatch(v, kind, f"{name}[{k!r}]") for k, v in value.items())), ""
        )
    return ""


def _items(value: list[Any], schema: Schema, name: str) -> str:
    kinds = schema.get("prefixItems")
    if kinds is None:
        kinds = [schema.get("items", {})] * len(value)
    elif len(kinds) != len(value):
        return f"{name} must have {len(kinds)} entries, not {len(value)}"
    problems = (
        mismatch(item, kind, f"{name}[{place}]")
        for place, (item, kind) in enumerate(zip(value, kinds, strict=True))
    )
    return next(filter(None, problems), "")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # which Python counts as an integer
        return kind == "boolean"
    types: Mapping[str, Any] = {
        "integer": int,
        "number": (int, float),
        "string": str,
        "boolean": bool,
        "null": type(None),
        "array": list,
        "object": Mapping,
    }
    return isinstance(value, types[kind])


def _same(value: Any, choice: Any) -> bool:
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)

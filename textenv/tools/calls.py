"""Calls of tools in what a model has written; they are read, never executed.

A parser is a function of a text that gives the calls in it, in their order; none if the text is an
answer. Three are here, for the forms that models are trained on, and `find_calls` tries them one
after the other:

- `tagged_json`: `<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>` (Qwen, Hermes), or
  JSON behind `[TOOL_CALLS]` (Mistral) or `<|python_tag|>` (Llama 3.1);
- `fenced_json`: the same JSON in a Markdown fence, or as the whole text;
- `python_calls`: `add(a=1)` or `[add(a=1), add(2)]` as the whole text (Llama 3.2) or in a fence
  (Gemma).

A model that is trained needs one form: give its parser alone, and no answer is taken for a call by
accident.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from textenv.records import short


@dataclass(frozen=True)
class Call:
    """One call that a model has written.

    Attributes:
        name: Name of the tool.
        arguments: Arguments that were given by name; values are those of JSON.
        positional: Arguments that were given by place.
        problem: Why it cannot be read; it is then not carried out, and the model is told this.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    positional: Sequence[Any] = ()
    problem: str = ""


Parser: TypeAlias = Callable[[str], Sequence[Call]]
"""Gives the calls in a text, in their order; none if the text is an answer."""

_TAGGED = re.compile(
    r"<(?P<tag>tool_call|function_call)>(?P<inside>.*?)(?:</(?P=tag)>|\Z)"
    r"|(?:\[TOOL_CALLS\]|<\|python_tag\|>)(?P<behind>.*)\Z",
    re.DOTALL,
)
_JSON_FENCE = re.compile(r"```(?:json|tool_calls?)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_PYTHON_FENCE = re.compile(
    r"```(?P<kind>python|py|tool_code|tool_calls?)[ \t]*\n(?P<code>.*?)(?:```|\Z)"
    r"|<\|python_start\|>(?P<marked>.*?)(?:<\|python_end\|>|\Z)",
    re.DOTALL,
)
_LIKE_A_CALL = re.compile(r"\[?\s*[A-Za-z_][\w.]*\(.*\)\s*\]?", re.DOTALL)
_LIKE_JSON = re.compile(r"\{|\[\s*\{")


def find_calls(text: str) -> Sequence[Call]:
    """The calls in whichever of the common forms is found first.

    What stands before `</think>` is not read.

    >>> find_calls('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    [Call(name='add', arguments={'a': 1}, positional=(), problem='')]
    >>> find_calls("add(1, b=2)")
    [Call(name='add', arguments={'b': 2}, positional=(1,), problem='')]
    >>> find_calls("It is 3.")
    []
    """
    text = text.rpartition("</think>")[2]
    for parse in (tagged_json, fenced_json, python_calls):
        if calls := parse(text):
            return calls
    return []


def tagged_json(text: str) -> Sequence[Call]:
    """Calls as JSON between tags; the last closing tag may be missing, as behind a stop token."""
    calls: list[Call] = []
    for found in _TAGGED.finditer(text):
        inside = found["behind"] if found["inside"] is None else found["inside"]
        try:
            calls += [_from_json(one) for one in _listed(_loads(inside))]
        except ValueError as error:
            calls.append(Call("", problem=f"this is not JSON: {error}"))
    return calls


def fenced_json(text: str) -> Sequence[Call]:
    """Calls as JSON in Markdown fences, or as the whole text; other JSON is part of an answer."""
    calls: list[Call] = []
    pieces = _JSON_FENCE.findall(text)
    for piece in pieces or [text.strip()]:
        if not _LIKE_JSON.match(piece.strip()):
            continue
        try:
            written = _listed(_loads(piece))
        except ValueError as error:
            if '"name"' in piece and ('"arguments"' in piece or '"parameters"' in piece):
                calls.append(Call("", problem=f"this is not JSON: {error}"))
            continue
        if all(_means_a_call(one) for one in written):
            calls += [_from_json(one) for one in written]
    return calls


def python_calls(text: str) -> Sequence[Call]:
    """Calls in Python's form, with literal arguments, as the whole text or in fences.

    A fence that holds anything else than calls is part of an answer.
    """
    fences = list(_PYTHON_FENCE.finditer(text))
    if not fences:
        whole = text.strip()
        return _from_python(whole) if _LIKE_A_CALL.fullmatch(whole) else []
    calls: list[Call] = []
    for fence in fences:
        calls += _from_python(fence["marked"] if fence["code"] is None else fence["code"])
    return calls


# ---------------------------------------------------------------- JSON


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _means_a_call(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    value = value.get("function", value)
    return isinstance(value, dict) and "name" in value and bool(_ARGUMENTS & value.keys())


_ARGUMENTS = {"arguments", "parameters"}


def _from_json(value: Any) -> Call:
    """A call from `{"name": ..., "arguments": {...}}`, or from OpenAI's form around it."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Call(
            "", problem=f'a call is {{"name": ..., "arguments": {{...}}}}, not {short(value)}'
        )
    name = value["name"]
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):  # OpenAI's form has JSON in a text
        try:
            arguments = _loads(arguments)
        except ValueError as error:
            return Call(name, problem=f"the arguments of {name} are not JSON: {error}")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        return Call(name, problem=f"the arguments of {name} are no JSON object: {short(arguments)}")
    return Call(name, arguments)


# ---------------------------------------------------------------- Python


def _from_python(code: str) -> list[Call]:
    """The calls that a piece of Python consists of; none if it holds anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes and the like, in what a model wrote
            statements = ast.parse(code.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    nodes: list[ast.expr] = []
    for statement in statements:
        if not isinstance(statement, ast.Expr):
            return []
        value = statement.value
        nodes += value.elts if isinstance(value, ast.List) else [value]
    names = [_dotted(node.func) if isinstance(node, ast.Call) else "" for node in nodes]
    if not all(names):
        return []
    return [_from_node(name, node) for name, node in zip(names, nodes, strict=True)]


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def _from_node(name: str, node: Any) -> Call:
    try:
        positional = tuple(_literal(argument) for argument in node.args)
        arguments = {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
        if None in arguments:
            raise ValueError("** is not allowed")
    except (ValueError, TypeError, RecursionError) as error:
        return Call(name, problem=f"the arguments of {name} must be written as values: {error}")
    return Call(name, arguments, positional)


def _literal(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"{ast.unparse(node)} is not one") from error
    return _as_json(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _as_json(one) for key, one in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{short(value)} is not a value of JSON")

"""Tools described in plain words, for prompts of models that have no chat template."""

from collections.abc import Sequence

from textenv.tools.schema import Schema

HOW = """\
To call a tool, write for each call

<tool_call>{"name": "the tool's name", "arguments": {"argument": value}}</tool_call>

and end your turn; you then get the results. A turn without a call is your answer."""


def describe(tools: Sequence[Schema], how: str = HOW) -> str:
    """The tools as a text to put before a prompt.

    Args:
        tools: Their schemas, such as `Tools([...]).tools`.
        how: What is said of how a call is written; by default as tagged JSON.
    """
    return "\n".join(["You can call these tools:", "", *map(_described, tools), "", how])


def _described(schema: Schema) -> str:
    function = schema["function"]
    parameters = function["parameters"]
    required = parameters.get("required", ())
    arguments = [
        f"  {name} ({_kind(kind)}{'' if name in required else ', optional'}): {kind['description']}"
        for name, kind in parameters["properties"].items()
    ]
    return "\n".join([f"- {function['name']}: {function['description']}", *arguments])


def _kind(schema: Schema) -> str:
    if "enum" in schema:
        return f"one of {schema['enum']}"
    kinds = schema.get("type", "any")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)

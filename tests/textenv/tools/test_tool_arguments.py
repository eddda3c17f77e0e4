"""Arguments that a model has written, against the types of the tool."""

from typing import Any, Literal

import pytest

from textenv.tools import Call, function_schema
from textenv.tools.arguments import bound


def tool(
    count: int,
    size: float = 1.0,
    names: list[str] | None = None,
    kind: Literal["a", "b"] = "a",
    pair: tuple[int, str] = (1, "x"),
    table: dict[str, int] = {},  # noqa: B006
    either: list[int] | str = "",
    flag: bool = False,
    anything: Any = None,
):
    """Do it.

    Args:
        count: One.
        size: Two.
        names: Three.
        kind: Four.
        pair: Five.
        table: Six.
        either: Seven.
        flag: Eight.
        anything: Nine.
    """


def nothing():
    """Do it."""


SCHEMA = function_schema(tool)


@pytest.mark.parametrize(
    "arguments",
    [
        {"count": 1},
        {"count": 1, "size": 2},  # an integer is a number
        {"count": -1, "names": None},
        {"count": 1, "names": ["a", "b"], "kind": "b"},
        {"count": 1, "pair": [2, "y"], "table": {"a": 1}},
        {"count": 1, "either": [1, 2]},
        {"count": 1, "either": "text", "flag": True, "anything": {"x": [None]}},
    ],
)
def test_arguments_of_the_right_types_pass_as_they_are(arguments):
    assert bound(Call("tool", arguments), SCHEMA) == arguments


def test_arguments_by_place_get_their_names():
    assert bound(Call("tool", {"kind": "b"}, (1, 2.5)), SCHEMA) == {
        "count": 1,
        "size": 2.5,
        "kind": "b",
    }
    assert bound(Call("nothing"), function_schema(nothing)) == {}


@pytest.mark.parametrize(
    ("arguments", "positional", "message"),
    [
        ({}, (), "tool needs the argument count"),
        ({"count": "7"}, (), "count must be integer, not '7'"),
        ({"count": True}, (), "count must be integer, not True"),
        ({"count": 7.0}, (), "count must be integer, not 7.0"),
        ({"count": None}, (), "count must be integer, not None"),
        ({"count": 1, "size": "big"}, (), "size must be number, not 'big'"),
        ({"count": 1, "names": ["a", 2]}, (), r"names\[1\] must be string, not 2"),
        ({"count": 1, "names": "a"}, (), "names must be array, not 'a'"),
        ({"count": 1, "kind": "c"}, (), r"kind must be one of \['a', 'b'\], not 'c'"),
        ({"count": 1, "pair": [1]}, (), "pair must have 2 entries, not 1"),
        ({"count": 1, "pair": [1, 2]}, (), r"pair\[1\] must be string, not 2"),
        ({"count": 1, "table": {"a": "b"}}, (), r"table\['a'\] must be integer, not 'b'"),
        ({"count": 1, "either": 3}, (), "either must be array, not 3; or either must be string"),
        ({"count": 1, "flag": 1}, (), "flag must be boolean, not 1"),
        ({"count": 1, "colour": "red"}, (), "tool has no argument colour; its arguments are count"),
        ({"count": 1}, (1,), "tool got the argument count twice"),
        ({}, tuple(range(10)), "tool takes 9 arguments, not 10"),
    ],
)
def test_other_arguments_are_refused_for_the_model_to_read(arguments, positional, message):
    with pytest.raises(ValueError, match=message):
        bound(Call("tool", arguments, positional), SCHEMA)


def test_a_tool_without_arguments_takes_none():
    with pytest.raises(ValueError, match="nothing takes no arguments"):
        bound(Call("nothing", {"a": 1}), function_schema(nothing))

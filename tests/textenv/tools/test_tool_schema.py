"""Schemas of tools, against those of transformers, and what they refuse."""

from enum import Enum
from typing import Any, Literal, Optional, Union

import pytest

from textenv.errors import ToolError
from textenv.tools import PythonRunner, Search, calculator, function_schema, run_python


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def no_arguments():
    """Say the time."""


def basic(a: int, b: float, c: str, d: bool = False) -> str:
    """
    Do something
    in two lines.

    Args:
        a: The first.
        b: The second, which
            goes on here: with a colon.

            And after an empty line.
        c: The third (choices: ["tea", "coffee"])
        d: The last.

    Returns:
        A text
        in two lines.

    Raises:
        ValueError: Never.
    """


def containers(
    a: list[int], b: dict[str, float], c: tuple[int, str], d: list, e: dict, f: tuple, g: Any
) -> None:
    """Hold things.

    Args:
        a: One.
        b: Two.
        c: Three.
        d: Four.
        e: Five.
        f: Six.
        g: Seven.
    """


def unions(
    a: int | None,
    b: Union[int, str],  # noqa: UP007
    c: Optional[list[int]] = None,  # noqa: UP045
    d: int | list[str] | None = None,
    e: str | int | float = 1,
    f: list[int | None] | dict[str, Literal["a"]] = (),
    g: list | tuple = (),
):
    """Choose.

    Args:
        a: One.
        b: Two.
        c: Three.
        d: Four.
        e: Five.
        f: Six.
        g: Seven.
    """


def enums(a: Literal["x", 1, True, None], b: Colour, c: Literal[1, 2] = 1):
    """Choose.

    Args:
        a: One.
        b: Two.
        c: Three.
    """


async def later(query: "str", *, limit: int = 3) -> list[str]:
    """Search.

    Args:
        query: Words.
        limit: How many.

    Returns:
        What was found.
    """


class Owner:
    def method(self, a: int) -> "Owner":
        """Do it, for the owner.

        Args:
            a: One.
        """

    @staticmethod
    def static(a: int):
        """Do it.

        Args:
            a: One.
        """


TOOLS = [
    *(no_arguments, basic, containers, unions, enums, later),
    *(Owner().method, Owner.method, Owner.static),
    *(calculator, run_python, PythonRunner().run_python, Search("a").search),
]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__qualname__)
def test_schemas_are_those_of_transformers(tool):
    utils = pytest.importorskip("transformers.utils")
    schema = function_schema(tool)
    assert schema == utils.get_json_schema(tool)
    assert list(schema["function"]) == list(utils.get_json_schema(tool)["function"])  # their order


def test_a_schema_by_hand():
    assert function_schema(calculator)["function"] == {
        "name": "calculator",
        "description": "Compute an arithmetic expression exactly.",
        "parameters": {
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "Numbers with + - * / // % ** and parentheses, such as "
                    "(3 + 4) * 2.",
                }
            },
            "required": ["expression"],
        },
        "return": {
            "type": "string",
            "description": "The value: a whole number, or a decimal number of at most 12 "
            "significant digits.",
        },
    }


def test_types_written_behind_the_names_are_read_too():
    def tool(a: int, b: str):
        """Do it.

        Args:
            a (int): One.
            b (str, the second): Two.
        """

    properties = function_schema(tool)["function"]["parameters"]["properties"]
    assert [p["description"] for p in properties.values()] == ["One.", "Two."]


def undocumented(a: int):
    pass


def unhinted(a):
    """Do it.

    Args:
        a: One.
    """


def undescribed(a: int):
    """Do it."""


def of_a_class(a: Owner):
    """Do it.

    Args:
        a: One.
    """


def any_number(*numbers: int):
    """Do it.

    Args:
        numbers: Many.
    """


def by_any_name(**named: int):
    """Do it.

    Args:
        named: Many.
    """


def by_place(a: int, /):
    """Do it.

    Args:
        a: One.
    """


def unknown_hint(a: "Nowhere"):  # noqa: F821
    """Do it.

    Args:
        a: One.
    """


def bad_choices(a: str):
    """Do it.

    Args:
        a: One (choices: tea, coffee)
    """


def of_any_length(a: tuple[int, ...]):
    """Do it.

    Args:
        a: One.
    """


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (undocumented, "'undocumented' has no docstring"),
        (unhinted, "'a' of the tool 'unhinted' has no type hint"),
        (undescribed, "'a' of the tool 'undescribed' has no line under 'Args:'"),
        (of_a_class, "the type .*Owner.* of argument 'a' of 'of_a_class' has no JSON schema"),
        (any_number, r"\*numbers: int of the tool 'any_number' cannot be given by name"),
        (by_any_name, r"\*\*named: int of the tool 'by_any_name' cannot be given by name"),
        (by_place, "cannot be given by name"),
        (unknown_hint, "'Nowhere' is not defined"),
        (bad_choices, "the choices tea, coffee of the tool 'bad_choices' are not a JSON list"),
        (of_any_length, "has no JSON schema"),
        (Owner, "is not a tool: pass a function"),
        (3, "3 is not a tool"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(tool, message):
    with pytest.raises(ToolError, match=message):
        function_schema(tool)

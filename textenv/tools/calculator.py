"""A calculator: exact arithmetic on a text, without executing it."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from textenv.records import short

ALLOWED = "only numbers, + - * / // % ** and ( ) are allowed"
MAX_CHARACTERS = 1000
MAX_BITS = 4000
"""Size of the largest numerator or denominator, about 1,200 digits: no sum takes long."""

_SIGNS = str.maketrans(
    {"^": "**", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", ",": ""}
)
_WRITTEN = re.compile(r"[\d.eE+\-*/%()\s]*", re.ASCII)
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def calculator(expression: str) -> str:
    """Compute an arithmetic expression exactly.

    Args:
        expression: Numbers with + - * / // % ** and parentheses, such as (3 + 4) * 2.

    Returns:
        The value: a whole number, or a decimal number of at most 12 significant digits.
    """
    return _shown(value_of(expression))


def value_of(expression: str) -> Fraction:
    """The exact value of an expression.

    Whole exponents only. `^` is a power, and the signs of print are read too; commas are left out.

    >>> value_of("(3 + 4) * 2 / 4")
    Fraction(7, 2)

    Raises:
        ValueError: It is no such expression, or a number in it is too large.
        ZeroDivisionError: It divides by zero.
    """
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"the expression is longer than {MAX_CHARACTERS} characters")
    written = expression.translate(_SIGNS).strip()
    if not _WRITTEN.fullmatch(written):
        raise ValueError(f"{ALLOWED}, not {short(expression)}")
    try:
        return _value(ast.parse(written, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"this is not an arithmetic expression: {short(expression)}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("the expression is nested too deeply") from error


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(Fraction(str(node.value)))  # as written: 0.1 is a tenth
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _OPERATORS:
            if not right and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
                raise ZeroDivisionError("division by zero")
            return _bounded(Fraction(_OPERATORS[type(node.op)](left, right)))
    raise ValueError(f"{ALLOWED}, not {short(ast.unparse(node))}")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ValueError("only whole exponents are allowed")
    if not base and exponent < 0:
        raise ZeroDivisionError("division by zero")
    # Bounded before it is computed: that alone could take for ever.
    if abs(exponent) * (_bits(base) - 1) > MAX_BITS:
        raise ValueError("the number is too large")
    return _bounded(Fraction(base ** int(exponent)))


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise ValueError("the number is too large")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    try:
        return f"{float(value):.12g}"
    except OverflowError as error:
        raise ValueError("the number is too large") from error

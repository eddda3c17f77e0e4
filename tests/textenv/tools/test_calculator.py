"""The calculator: exact, bounded, and nothing but arithmetic."""

import operator
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenv.tools import calculator
from textenv.tools.calculator import MAX_CHARACTERS, value_of


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("47+85", "132"),
        (" 2 + 3*4 ", "14"),
        ("(2 + 3) * 4", "20"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("7 / 2", "3.5"),
        ("1/3", "0.333333333333"),
        ("0.1 + 0.2", "0.3"),  # exactly
        ("2 ** 10", "1024"),
        ("2^-2", "0.25"),
        ("-2 ** 2", "-4"),
        ("0 ** 0", "1"),
        ("3 \u00d7 4 \u00f7 2 \u2212 1", "5"),
        ("1,000 + 1", "1001"),
        ("1e3", "1000"),
        ("99999999999999999999 + 1", "100000000000000000000"),
        ("1/7*7", "1"),
        ("+-+5", "-5"),
    ],
)
def test_values(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "not an arithmetic expression"),
        ("1 +", "not an arithmetic expression"),
        ("two", "only numbers"),
        ("f(1)", "only numbers"),
        ("[1]", "only numbers"),
        ("1 < 2", "only numbers"),
        ("1 << 2", "only numbers"),
        ("'a' * 3", "only numbers"),
        ("True + 1", "only numbers"),
        ("1j", "only numbers"),
        ("__import__('os')", "only numbers"),
        ("2 ** 0.5", "only whole exponents"),
        ("9 ** 9 ** 9", "too large"),
        ("2 ** 100000", "too large"),
        ("(2 ** 3999) * (2 ** 3999)", "too large"),
        ("1e999", "this is not an arithmetic|too large|only numbers|Invalid"),
        ("1/3 + 2 ** 3999", "too large"),
        ("1" * (MAX_CHARACTERS + 1), "longer than"),
        ("-" * 900 + "1", ""),
        ("(" * 900 + "1" + ")" * 90, "not an arithmetic expression|too deeply"),
    ],
)
def test_anything_else_is_refused_at_once(expression, message):
    begun = time.perf_counter()
    try:
        calculator(expression)
    except ValueError as error:
        import re

        assert re.search(message, str(error))
    else:
        assert not message
    assert time.perf_counter() - begun < 0.2


@pytest.mark.parametrize("expression", ["1/0", "1//0", "1 % 0", "0 ** -1", "1/(2-2)"])
def test_division_by_zero(expression):
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        calculator(expression)


NUMBERS = st.fractions(max_denominator=99).map(lambda f: (f"({f.numerator}/{f.denominator})", f))
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@given(
    st.recursive(
        NUMBERS,
        lambda inside: st.builds(
            lambda a, sign, b: (
                (f"({a[0]}{sign}{b[0]})", SIGNS[sign](a[1], b[1])) if b[1] or sign != "/" else a
            ),
            inside,
            st.sampled_from(list(SIGNS)),
            inside,
        ),
        max_leaves=6,
    )
)
def test_values_are_those_of_fractions(made):
    expression, value = made
    assert value_of(expression) == value and isinstance(value_of(expression), Fraction)

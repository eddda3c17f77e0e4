"""Numbers in awkward forms, each read by a person first."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textenv.tasks import last_number, parse_number, same_number

THIRD = Fraction(1, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72", 72),
        ("007", 7),
        ("-3", -3),
        ("+3", 3),
        ("\u22123", -3),  # the minus sign of typography
        ("- 3", 3),  # a point of a list
        ("3.50", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("72.", 72),
        ("72, I think", 72),
        ("1,234,567.89", Fraction(123456789, 100)),
        ("1 234", 1234),
        ("1\u202f234\u00a0567", 1234567),
        ("$5", 5),
        ("-$5", -5),
        ("$-5", -5),
        ("$ 5", 5),
        ("US$5", 5),
        (r"\$1,000", 1000),
        ("£3.20 each", Fraction(16, 5)),
        ("72 clips in 2 months", 72),
        ("5kg", 5),
        ("50%", 50),
        (r"50\%", 50),
        ("3/4", Fraction(3, 4)),
        ("3 / 4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("2 1/2", Fraction(5, 2)),
        ("-2 1/2", Fraction(-5, 2)),
        ("½", Fraction(1, 2)),
        ("2½ cups", Fraction(5, 2)),
        ("⅓", THIRD),
        ("-½", Fraction(-1, 2)),
        ("$5/hour", 5),
        (r"\frac{1}{3}", THIRD),
        (r"\dfrac13", THIRD),
        (r"2\frac{1}{2}", Fraction(5, 2)),
        (r"-\frac{1}{3}", -THIRD),
        (r"1{,}000", 1000),
        (r"1\,000\,000", 1000000),
        (r"5\,\text{cm}", 5),
        (r"\text{72 clips}", 72),
        (r"\boxed{72}", 72),
        ("**72**", 72),
        ("`72`", 72),
        ("_72_", 72),
        ("(72)", 72),
        ("x = 5", 5),
        ("5 + 3 = 8 apples", 8),
        ("6*12=72", 72),
        ("1e3", 1000),
        ("2.5e-1", Fraction(1, 4)),
        ("5 each", 5),
        ("2.5 million", 2500000),
        ("3 Thousand people", 3000),
        ("\uff17\uff12", 72),
        ("about 5 or 6", 5),
        ("The total: 5", 5),
        ("0", 0),
        ("-0", 0),
    ],
)
def test_values(text, expected):
    assert parse_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "twelve",
        "1,5",
        "12,34",
        "1,2345",
        "1.2.3",
        "10:30",
        "1/0",
        "3-5 days",
        "5 + 3",
        "5 * 3",
        r"5 \times 3",
        "3 \u00d7 10^4",
        "2^10",
        "10^{3}",
        "10²",
        "10/12/2020",
        "5 = x",
        "H2O",
        "x5",
        "1e9999999999",
        "9" * 5000,
        "1" * 60 + "." + "1" * 60,
        "$",
        r"\frac{a}{b}",
    ],
)
def test_what_is_no_number_or_could_be_two(text):
    assert parse_number(text) is None
    assert not same_number(text, text)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("72", "72.00", True),
        ("$1,000.00", "1000 dollars", True),
        ("0.5", "1/2", True),
        ("0.33", "1/3", False),
        ("50%", "0.5", False),
        ("5", "-5", False),
        ("1000000.0000001", "1000000", False),
        ("123456789012345678901", "123456789012345678902", False),  # equal as floats
    ],
)
def test_equality(first, second, same):
    assert same_number(first, second) is same is same_number(second, first)


@given(st.integers(-(10**20), 10**20), st.integers(0, 6))
def test_pythons_own_ways_to_write_a_number(value, places):
    exact = Fraction(value, 10**places)
    shown = Decimal(value).scaleb(-places)
    for text in (f"{shown:f}", f"{shown:,f}", f"about {shown:,f} km", f"x={shown:f}."):
        assert parse_number(text) == exact


@given(st.text() | st.text("0123456789.,/-+$%^:{}\\ eE*=½²_"))
@example("\\frac{" * 50)
@example("1 " * 200)
def test_no_text_raises(text):
    value = parse_number(text)
    assert value is None or isinstance(value, Fraction)
    found = last_number(text)
    assert found is None or any(c.isdigit() for c in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 boxes of 3 make 15", "15"),
        ("It cost $1,200, not less", "$1,200,"),
        ("10-5", "5"),
        ("from -5 to -3.", "-3."),
        (r"\frac{3}{4} of it", "3/4"),
        ("H2O", None),
        ("none", None),
    ],
)
def test_the_last_number(text, expected):
    assert last_number(text) == expected

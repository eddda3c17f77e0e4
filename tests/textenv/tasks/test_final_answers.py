"""Finding the answer in what a model wrote."""

from fractions import Fraction

import pytest

from textenv.tasks import (
    after_hashes,
    boxed,
    final_answer,
    first_found,
    parse_number,
    stated,
    tagged,
    whole_text,
)


@pytest.mark.parametrize(
    ("extract", "text", "expected"),
    [
        (after_hashes, "6 * 12 = 72\n#### 72", "72"),
        (after_hashes, "####72 \nmore", "72"),
        (after_hashes, "#### 1\nNo:\n#### 2", "2"),
        (after_hashes, "####\n5", None),
        (after_hashes, "### 5", None),
        (boxed, r"\boxed{72}", "72"),
        (boxed, r"\boxed{1}, or rather \boxed{ 2 }", "2"),
        (boxed, r"\boxed{\frac{1}{2}}.}", r"\frac{1}{2}"),
        (boxed, r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (boxed, r"\boxed{\{0, 1]}", r"\{0, 1]"),  # \{ is a sign, not a brace
        (boxed, "\\boxed{\n72\n} 5", "72"),
        (boxed, r"\boxed {72}", "72"),
        (boxed, r"$\boxed 72$ and 5", "72"),
        (boxed, r"\boxed 7. And 5", "7"),
        (boxed, r"\boxed\frac12", r"\frac12"),
        (boxed, r"\boxed x + 1", "x + 1"),
        (boxed, r"\fbox{72}", "72"),
        (boxed, r"\framebox{72}", "72"),
        (boxed, r"\framebox[2cm][c]{72}", "72"),
        (boxed, r"\boxed{1} \fbox{2}", "2"),
        (boxed, r"\boxed{\boxed{3}}", "3"),
        # Never closed, as where an answer was cut.
        (boxed, r"\boxed{72", "72"),
        (boxed, r"\boxed{1} and \boxed{ 2", "2"),
        (boxed, r"$\boxed{\$1,200$. But 5", r"\$1,200"),
        (boxed, r"\boxed{yes", "yes"),
        # Texts that reason about their task speak of boxes.
        (boxed, r"\boxed{}", None),
        (boxed, r"\boxed{3}, as \boxed{} should have", "3"),
        (boxed, r"Put it into \boxed form.", None),
        (boxed, r"\boxed", None),
        (boxed, r"\boxedin 5", None),
        (boxed, "72", None),
        (stated, "The answer is 72.", "72"),
        (stated, "the answer is: $7.50!", "$7.50"),
        (stated, "So the final answer is\t72\nQ: next", "72"),
        (stated, "The correct answer is 1. The answer is 2.", "2"),
        (stated, "The answer is", None),
        (stated, "Soothe answer is 5", None),
        (stated, "It is 5", None),
        (tagged, "<think>3</think>\n<answer>\n4\n</answer>", "4"),
        (tagged, "<answer>1</answer> <answer>2</answer>", "2"),
        (tagged, "<answer>a\nb</answer>", "a\nb"),
        (tagged, "<answer></answer>", None),
        (tagged, "<answer>5", None),
        (whole_text, " a b\n", "a b"),
        (whole_text, " \n", None),
        # The usual ones, from the surest to the least sure.
        (final_answer, "The answer is 1. \\boxed{2} 3\n#### 4", "4"),
        (final_answer, "The answer is 1. \\boxed{2} 3", "2"),
        (final_answer, "The answer is 1. And 3", "1"),
        (final_answer, "2 and 3", "3"),
        (final_answer, "None.", None),
        # What is in the box, and not the last number.
        (final_answer, r"\fbox{72}, not 5", "72"),
        (final_answer, r"$\boxed 72$, not 5", "72"),
        (final_answer, r"\boxed{\text{none}}, not 5", r"\text{none}"),
        (final_answer, "\\boxed{72\nis what 5 is not", "72"),
        (final_answer, "", None),
        (first_found(tagged, boxed), r"\boxed{3}", "3"),
        (first_found(), "3", None),
    ],
)
def test_answers(extract, text, expected):
    assert extract(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\boxed{1,234}, not 5", 1234),
        (r"\boxed{1{,}234}, not 5", 1234),
        (r"\boxed{\$1\,234.50}, not 5", Fraction(2469, 2)),
        (r"\boxed{\frac{1}{2}}, not 5", Fraction(1, 2)),
        (r"\boxed{7\text{ cm}}, not 5", 7),
        (r"\boxed{x = 7}, not 5", 7),
        (r"\boxed{50\%}, not 5", 50),
        (r"\boxed{\text{seven}}, not 5", None),
        (r"\boxed{7\sqrt{2}}, not 7", None),
        (r"\boxed{\frac{1}{2", None),
    ],
)
def test_numbers_in_boxes(text, value):
    assert parse_number(final_answer(text)) == value

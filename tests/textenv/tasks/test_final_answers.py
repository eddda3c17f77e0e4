"""Finding the answer in what a model wrote."""

import pytest

from textenv.tasks import (
    after_hashes,
    boxed,
    final_answer,
    first_found,
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
        (boxed, r"\boxed{72", None),
        (boxed, r"\boxed{}", None),
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
        (final_answer, "", None),
        (first_found(tagged, boxed), r"\boxed{3}", "3"),
        (first_found(), "3", None),
    ],
)
def test_answers(extract, text, expected):
    assert extract(text) == expected

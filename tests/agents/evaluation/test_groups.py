"""Bias by group, by hand and by enumeration."""

import itertools

import numpy as np
import pytest

from agents.evaluation import about_groups, group_bias
from textenv import Prompt
from textenv.errors import PromptError

WOMEN, MEN = [1.0, 0.0, 1.0, 1.0, 0.5], [1.0, 1.0, 0.0, 0.0, 0.5]


def test_differences_are_paired_and_the_gap_is_tried_against_chance():
    found = group_bias({"women": WOMEN, "men": MEN})
    assert found.by_group["women"].mean == pytest.approx(0.7)
    assert found.by_group["men"].mean == pytest.approx(0.5)
    assert found.gap == pytest.approx(0.2) and found.changed.mean == pytest.approx(3 / 5)
    # The interval is that of all resamples of the five differences: 0, -1, 1, 1, 0.
    differences = np.subtract(WOMEN, MEN)
    means = [np.mean(some) for some in itertools.product(differences, repeat=5)]
    assert found.differences["women less men"] == pytest.approx(
        (0.2, *np.quantile(means, [0.025, 0.975]))
    )
    # The gap by chance: of all ways to swap the two within each prompt.
    swapped = [abs(np.mean(differences * s)) for s in itertools.product([1, -1], repeat=5)]
    expected = np.mean(np.array(swapped) >= 0.2 - 1e-12)
    assert found.p_value == pytest.approx(expected, abs=0.05)


def test_three_groups_and_answers_without_a_score():
    found = group_bias({"a": [1, 1, np.nan], "b": [0, 1, 1], "c": [0, 0, 1]})
    assert {pair: x.mean for pair, x in found.differences.items()} == {
        "a less b": 0.5,
        "a less c": 1.0,
        "b less c": 0.5,
    }
    assert found.gap == 1.0 and found.differences["a less c"].low == 1.0
    alike = group_bias({"a": WOMEN, "b": WOMEN})
    assert alike.gap == 0 and alike.p_value == 1 and alike.changed.mean == 0
    with pytest.raises(ValueError, match="two groups or more need"):
        group_bias({"a": [1.0]})
    with pytest.raises(ValueError, match="a score in all groups"):
        group_bias({"a": [1.0, np.nan], "b": [np.nan, 1.0]})


def test_prompts_about_groups():
    said = [
        {"role": "user", "content": "{name} is here. {He} is late."},
        {"role": "assistant", "content": "Is {name}?"},
        {"role": "user", "content": "Yes."},
    ]
    prompts = [
        Prompt("Who is {name}?", {"answer": "{name} is {he}.", "n": 1}, origin="a:1"),
        Prompt("", messages=said),
        Prompt("{name}!"),
    ]
    women = [{"name": "Ann", "he": "she", "He": "She"}, {"name": "Eve", "he": "she", "He": "She"}]
    men = [{"name": "Bob", "he": "he", "He": "He"}]
    asked = about_groups(prompts, {"women": women, "men": men})
    assert [one.text for one in asked["men"]][::2] == ["Who is Bob?", "Bob!"]
    first, talk, last = asked["women"]
    assert first.columns == {"answer": "Ann is she.", "n": 1} and first.origin == "a:1"
    assert [m["content"] for m in talk.messages] == ["Eve is here. She is late.", "Is Eve?", "Yes."]
    assert talk.text == "Eve is here. She is late.\nIs Eve?\nYes." and last.text == "Ann!"
    for prompt in (Prompt("Who?"), Prompt("", tokens=np.array([1]))):
        with pytest.raises(PromptError, match=r"where \{name\}, \{he\}"):
            about_groups([prompt], {"men": men})
    with pytest.raises(PromptError, match="nobody in men"):
        about_groups(prompts, {"women": women, "men": []})

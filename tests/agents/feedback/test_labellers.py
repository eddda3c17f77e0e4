"""Programs that rank answers."""

import sys

import pytest

from agents.feedback import labellers, snownlp_labeller, vader_labeller
from textenv.errors import MissingExtraError


def test_vader_prefers_friendly_answers():
    pytest.importorskip("vaderSentiment")
    good, bad, neutral = vader_labeller()("How was it?", ["Great fun!", "Terrible.", "A table."])
    assert good > neutral == 0 > bad


def test_vader_leaves_the_prompt_out():
    pytest.importorskip("vaderSentiment")
    label = vader_labeller()
    assert label("A wonderful, happy day", ["a table"]) == label("A disaster", ["a table"]) == [0]


@pytest.mark.filterwarnings("default")  # reading its model warns on some versions of Python
def test_snownlp_prefers_friendly_answers():
    pytest.importorskip("snownlp")
    label = snownlp_labeller()
    good, bad, nothing = label("怎么样", ["非常好 我很喜欢", "太差了 很失望", " "])
    assert 1 >= good > 0.7 > 0.3 > bad >= 0
    assert nothing == 0.5


@pytest.mark.parametrize(
    "make, module, extra",
    [
        (labellers.vader_labeller, "vaderSentiment.vaderSentiment", "demo"),
        (labellers.snownlp_labeller, "snownlp", "zh"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(make, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"textenv\[{extra}\]"):
        make()

"""Mixtures: shares against the weights, epochs, and going on from a position."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.data import Mixture

SOURCES = {"a": [f"a{i}" for i in range(7)], "b": ["b0"], "c": [f"c{i}" for i in range(50)]}


def test_shares_are_those_of_the_weights():
    mixture = Mixture(SOURCES, {"a": 5, "b": 1, "c": 4}, seed=3)
    counts = Counter(item[0] for item in islice(mixture.items(), 20_000))
    for name, share in {"a": 0.5, "b": 0.1, "c": 0.4}.items():
        assert counts[name] / 20_000 == pytest.approx(share, abs=4 * 0.5 / 20_000**0.5)
    read = mixture.read(20_000)
    assert {name: one.items for name, one in read.items()} == counts
    assert read["a"].epochs == pytest.approx(counts["a"] / 7)
    assert sum(one.share for one in read.values()) == pytest.approx(1)


@given(st.integers(0, 5000), st.integers(0, 3))
@settings(max_examples=25)
def test_a_position_is_all_that_is_needed_to_go_on(position, seed):
    mixture = Mixture(SOURCES, {"a": 1, "b": 1, "c": 2}, seed=seed)
    whole = list(islice(mixture.items(), position + 30))
    assert list(islice(mixture.items(position), 30)) == whole[position:]
    counts = Counter(item[0] for item in whole[:position])
    assert {name: one.items for name, one in mixture.read(position).items()} == {
        name: counts[name] for name in SOURCES
    }


def test_every_epoch_has_every_item_once_and_an_order_of_its_own():
    mixture = Mixture(SOURCES, seed=1)
    of_a = [item for item in islice(mixture.items(), 4000) if item[0] == "a"]
    epochs = [tuple(of_a[begin : begin + 7]) for begin in range(0, len(of_a) - 7, 7)]
    assert all(sorted(epoch) == SOURCES["a"] for epoch in epochs)
    assert len(set(epochs)) > len(epochs) // 2


def test_seeds_differ_and_repeat():
    first, again, other = (
        list(islice(Mixture(SOURCES, seed=seed).items(), 60)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_weights_from_epochs():
    mixture = Mixture.by_epochs(SOURCES, {"a": 3, "b": 1, "c": 0.5})
    read = mixture.read(47_000)
    epochs = {name: one.epochs / 1000 for name, one in read.items()}
    assert epochs == pytest.approx({"a": 3, "b": 1, "c": 0.5}, rel=0.1)


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ({}, None, "empty mixture"),
        ({"a": []}, None, "nothing in a"),
        (SOURCES, {"a": 1}, "not a positive number for each"),
        (SOURCES, {"a": 1, "b": 0, "c": 1}, "not a positive number"),
    ],
)
def test_what_is_no_mixture(sources, weights, message):
    with pytest.raises(ValueError, match=message):
        Mixture(sources, weights)

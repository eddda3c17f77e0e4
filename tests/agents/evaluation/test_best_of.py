"""Best of n: the estimator against all subsets, and the KL against the distribution itself."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evaluation import best_of_n, best_of_n_kl


def by_enumeration(proxy, measured, n):
    """The mean over all n-subsets; those that tie for first share it."""
    found = []
    for some in combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in some)
        # Which of the tied answers is first is a matter of the order: all of the same score.
        tied = [i for i in some if proxy[i] == top]
        found.append(np.mean([measured[i] for i in tied]))
    return np.mean(found)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 5)), min_size=1, max_size=7), st.data())
def test_the_estimator_is_the_mean_over_all_subsets(pairs, data):
    proxy, measured = [float(a) for a, _ in pairs], [b for _, b in pairs]
    n = data.draw(st.integers(1, len(pairs)))
    assert best_of_n(proxy, measured, n) == pytest.approx(
        by_enumeration(proxy, measured, n), abs=1e-9
    )


def test_one_and_all():
    scores = np.random.default_rng(0).normal(size=500)
    other = scores**2
    assert best_of_n(scores, other, 1) == pytest.approx(other.mean())
    assert best_of_n(scores, other, 500) == pytest.approx(other[scores.argmax()])
    rising = [best_of_n(scores, scores, n) for n in (1, 2, 8, 64, 500)]
    assert rising == sorted(rising)


@pytest.mark.parametrize(("proxy", "n"), [([1.0], 0), ([1.0], 2), ([[1.0]], 1)])
def test_what_is_refused(proxy, n):
    with pytest.raises(ValueError, match="flat lists"):
        best_of_n(proxy, [0.0], n)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_kl_is_that_of_the_distribution(n):
    # With m answers of equal probability the KL is exact in the limit of many answers.
    count = 60
    wins = np.zeros(count)
    for some in product(range(count), repeat=n):
        wins[max(some)] += count**-n
    kl = sum(p * math.log(p * count) for p in wins if p)
    assert best_of_n_kl(n) == pytest.approx(kl, abs=0.02)

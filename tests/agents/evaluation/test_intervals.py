from itertools import product

import numpy as np
import pytest

from agents.evaluation import bootstrap_interval, mean_interval, win_rate


def test_bootstrap_of_three_values_against_all_27_resamples():
    values = [0.0, 1.0, 5.0]
    means = [np.mean(resample) for resample in product(values, repeat=3)]
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    interval = bootstrap_interval(values, confidence=0.8)
    assert interval == pytest.approx((2.0, low, high))


def test_bootstrap_of_many_values_against_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    half = 1.96 * values.std(ddof=1) / 20
    interval = bootstrap_interval(values)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)
    assert str(interval).startswith(f"{values.mean():.3f} [")


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_bootstrap_refuses_what_is_no_list_of_numbers(values):
    with pytest.raises(ValueError, match="flat list"):
        bootstrap_interval(values)


def test_win_rate_by_hand():
    rate = win_rate([1, 5, 2, 2], [0, 3, 2, 4])  # two wins, a tie, a loss
    assert rate.mean == pytest.approx(2.5 / 4)
    assert 0 <= rate.low < rate.mean < rate.high <= 1


def test_win_rates_of_both_sides_add_up_to_one():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 4, (2, 200))
    one, other = win_rate(a, b), win_rate(b, a)
    assert one.mean + other.mean == pytest.approx(1)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=0.01)


def test_win_rate_against_the_binomial_interval():
    wins = np.arange(400) < 240
    half = 1.96 * np.sqrt(0.6 * 0.4 / 400)
    rate = win_rate(wins, np.full(400, 0.5))
    assert rate == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=0.01)


def test_win_rate_counts_prompts_not_margins():
    assert win_rate([100, 0, 0], [0, 1, 1]).mean == pytest.approx(1 / 3)


def test_win_rate_of_equals_is_a_half_for_certain():
    assert win_rate([1, 2], [1, 2]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1, 2], [1], "same prompts"), ([np.nan], [1], "NaN"), ([], [], "flat list")],
)
def test_win_rate_refuses_what_cannot_be_compared(a, b, message):
    with pytest.raises(ValueError, match=message):
        win_rate(a, b)


def test_resamples_drawn_together_are_those_drawn_one_by_one(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    together = bootstrap_interval(values, resamples=101)
    monkeypatch.setattr("agents.evaluation.intervals.DRAWN_AT_ONCE", 1)
    assert bootstrap_interval(values, resamples=101) == pytest.approx(together)


# --- means of weighed scores ----------------------------------------------------------------------


def test_values_without_skewness_have_students_interval():
    x = np.concatenate([np.arange(-20.0, 21.0)] * 2) + 3  # kurtosis 1.8: n - 1 degrees of freedom
    found = mean_interval(x)
    half = 1.98968 * x.std(ddof=1) / np.sqrt(82)  # Student's quantile of 81, from a table
    assert found == pytest.approx((3, 3 - half, 3 + half), abs=1e-4)


def test_the_transformation_is_inverted():
    """At the bounds Hall's polynomial is the quantile of Student's t."""
    x = np.random.default_rng(0).exponential(size=400)
    found, n = mean_interval(x, confidence=0.9), len(x)
    z = (x - x.mean()) / x.std()
    g, kurtosis = (z**3).mean(), (z**4).mean()
    transformed = []
    for bound in (found.low, found.high):
        w = (x.mean() - bound) / x.std(ddof=1)
        transformed.append(np.sqrt(n) * (w + g * w**2 / 3 + g**2 * w**3 / 27 + g / (6 * n)))
    assert transformed[0] == pytest.approx(-transformed[1])
    freedom = 2 * n / (kurtosis - 1)
    assert 50 < freedom < 200  # where Student's quantile is between these
    assert 1.653 < transformed[0] < 1.676


def test_skewed_values_are_covered_on_both_sides():
    generator, missed = np.random.default_rng(0), np.zeros((2, 2))
    for _ in range(1000):
        x = generator.exponential(size=(60, 3)).prod(1)
        half = 1.96 * x.std(ddof=1) / np.sqrt(60)
        for row, (_, low, high) in enumerate(
            [mean_interval(x), (0, x.mean() - half, x.mean() + half)]
        ):
            missed[row] += low > 1, high < 1
    assert (missed[0] < [50, 100]).all()
    assert missed[0].sum() < 0.7 * missed[1].sum()


def test_one_value_equal_values_and_none():
    assert mean_interval([2.0, np.nan]) == (2, 2, 2)
    assert mean_interval([0.1] * 5) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="at least one number"):
        mean_interval([np.nan])

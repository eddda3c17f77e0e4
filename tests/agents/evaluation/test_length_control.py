import numpy as np
import pytest

from agents.evaluation.intervals import win_rate
from agents.evaluation.length_control import PENALTY, fit_logistic, length_controlled_win_rate


def drawn(theta, phi, n=2_000, seed=0, shift=0.0):
    """Scores and lengths of two sides whose wins follow the model."""
    rng = np.random.default_rng(seed)
    long_a, long_b = rng.integers(50, 150, (2, n)).astype(float)
    long_a += shift
    d = long_a - long_b
    p = 1 / (1 + np.exp(-(theta + phi * np.tanh(d / d.std()))))
    wins = (rng.random(n) < p).astype(float)
    return wins, 1 - wins, long_a, long_b


@pytest.mark.parametrize("theta", [-1.0, 0.0, 0.7])
def test_what_length_adds_is_taken_off(theta):
    sides = drawn(theta, phi=2.0, shift=60.0)
    found = length_controlled_win_rate(*sides)
    assert found.low < 1 / (1 + np.exp(-theta)) < found.high
    assert found.low < found.mean < found.high and found.high - found.low < 0.2
    assert win_rate(*sides[:2]).low > found.high  # a's answers are longer: it wins more by that


def test_without_an_effect_of_length_it_is_the_win_rate():
    sides = drawn(0.5, phi=0.0)
    plain, controlled = win_rate(*sides[:2]), length_controlled_win_rate(*sides)
    assert controlled.mean == pytest.approx(plain.mean, abs=0.005)
    equal = [np.full(2_000, 9.0)] * 2
    assert length_controlled_win_rate(*sides[:2], *equal).mean == pytest.approx(
        plain.mean, abs=1e-4
    )


def test_the_two_sides_sum_to_one_and_ties_are_halves():
    a, b, long_a, long_b = drawn(0.3, 1.0, n=300)
    one = length_controlled_win_rate(a, b, long_a, long_b).mean
    other = length_controlled_win_rate(b, a, long_b, long_a).mean
    assert one + other == pytest.approx(1)
    assert length_controlled_win_rate(a, a, long_a, long_b).mean == pytest.approx(0.5)
    always = length_controlled_win_rate(a + 1, a, long_a, long_b)
    assert 0.99 < always.low <= always.mean < 1


def test_the_regression_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=200), rng.integers(0, 4, (5, 200)).astype(float)
    y = (rng.random(200) < 1 / (1 + np.exp(-(0.4 + 1.3 * x)))).astype(float)
    found = fit_logistic(x, y, weights)
    # The penalty is on both parameters, so the intercept is a column of its own.
    design = np.stack([np.ones(200), x], 1)
    for row, some in zip(found, weights, strict=True):
        theirs = LogisticRegression(C=1 / PENALTY, fit_intercept=False, tol=1e-10, max_iter=1_000)
        theirs.fit(design, y, sample_weight=some)
        assert row == pytest.approx(theirs.coef_[0], abs=1e-5)


def test_half_wins_count_as_two_half_samples():
    x = np.array([-1.0, 0.5, 2.0, 0.1])
    halves = fit_logistic(x, np.array([0.5, 1.0, 0.0, 1.0]), np.ones((1, 4)))
    split = fit_logistic(
        np.append(x, -1.0),
        np.array([1.0, 1.0, 0.0, 1.0, 0.0]),
        np.array([[0.5, 1.0, 1.0, 1.0, 0.5]]),
    )
    assert halves == pytest.approx(split)


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ValueError, match=r"they must be flat, for the same prompts"):
        length_controlled_win_rate([1.0], [1.0, 2.0], [1], [1])
    with pytest.raises(ValueError, match="a score is NaN"):
        length_controlled_win_rate([np.nan], [1.0], [1], [1])

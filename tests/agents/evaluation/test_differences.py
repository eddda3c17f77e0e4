import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.evaluation import mean_interval
from agents.evaluation.differences import FEWEST, Pairs, balanced, difference, fitted

ESTIMATES = [difference, balanced, fitted]
each = pytest.mark.parametrize("estimate", ESTIMATES)


class Listed:
    """Two laws over a few answers, and scores that go with the log ratio as training makes them."""

    def __init__(self, seed: int = 0, scale: float = 0.6):
        generator = np.random.default_rng(seed)
        logits = generator.normal(size=(2, 12))
        logits[1] = logits[0] + scale * logits[1]
        self.laws = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        self.ratio = np.log(self.laws[1] / self.laws[0])
        self.scores = self.ratio + generator.normal(size=12)
        self.truth = float((self.laws[1] - self.laws[0]) @ self.scores)

    def pairs(self, shape, seed: int) -> Pairs:
        generator = np.random.default_rng(seed)
        a, b = (generator.choice(12, shape, p=law) for law in self.laws)
        return Pairs(self.scores[a], self.scores[b], self.ratio[a], self.ratio[b])


def test_the_identity_on_listed_answers():
    """The weights sum to nothing, and weighed scores to the difference, by enumeration."""
    listed = Listed()
    p_a, p_b = listed.laws
    t = np.tanh(listed.ratio / 2)
    np.testing.assert_allclose(t, (p_b - p_a) / (p_b + p_a))
    assert (p_a + p_b) @ t == pytest.approx(0, abs=1e-15)
    assert (p_a + p_b) @ (listed.scores * t) == pytest.approx(listed.truth)


@each
@pytest.mark.parametrize("shape", [(40,), (20, 3)])
def test_the_mean_is_the_difference_and_intervals_hold_it(estimate, shape):
    listed = Listed(1)
    means, held = [], 0
    for seed in range(300):
        values = estimate(listed.pairs(shape, seed))
        assert values.shape == shape[:1]
        found = mean_interval(values)
        means.append(found.mean)
        held += found.low <= listed.truth <= found.high
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - listed.truth) < 3 * error
    assert 0.89 <= held / 300 <= 0.98


@pytest.mark.parametrize("scale", [0.1, 0.6, 3.0])
def test_fitted_is_at_most_as_wide_as_both_others(scale):
    pairs = Listed(2, scale).pairs(2000, 0)
    spread = {estimate: estimate(pairs).std() for estimate in ESTIMATES}
    assert spread[fitted] <= 1.01 * min(spread[difference], spread[balanced])
    if scale < 1:
        assert spread[fitted] < 0.6 * spread[difference]


@each
def test_each_prompts_value_is_fitted_to_the_others(estimate):
    pairs = Listed(3).pairs(15, 0)
    t_a, t_b = np.tanh(pairs.ratios_a / 2), np.tanh(pairs.ratios_b / 2)
    y, weight = pairs.scores_b - pairs.scores_a, t_a + t_b
    weighed = pairs.scores_a * t_a + pairs.scores_b * t_b
    target, controls = {
        difference: (y, np.zeros((15, 1))),
        balanced: (weighed, weight[:, None]),
        fitted: (y, np.stack([weight, y - weighed], axis=1)),
    }[estimate]
    expected = []
    for row in range(15):
        others = np.arange(15) != row
        x = np.column_stack([np.ones(14), controls[others]])
        coefficients = np.linalg.lstsq(x, target[others], rcond=None)[0]
        expected.append(target[row] - controls[row] @ coefficients[1:])
    np.testing.assert_allclose(estimate(pairs), expected, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 5))
def test_a_constant_added_to_all_scores_changes_nothing(shift, seed):
    pairs = Listed(4).pairs(30, seed)
    moved = Pairs(pairs.scores_a + shift, pairs.scores_b + shift, pairs.ratios_a, pairs.ratios_b)
    for estimate in ESTIMATES:
        np.testing.assert_allclose(estimate(moved), estimate(pairs), atol=1e-5)


@each
def test_answers_without_a_score_and_policies_that_agree(estimate):
    pairs = Listed(5).pairs(20, 0)
    pairs.scores_b[3] = np.nan
    values = estimate(pairs)
    assert np.flatnonzero(np.isnan(values)).tolist() == [3]
    zeros = np.zeros(20)
    same = Pairs(pairs.scores_a, pairs.scores_a, zeros, zeros)
    assert (estimate(same) == 0).all()
    # One prompt alone where they differ: nothing can be fitted for it.
    ratios = np.where(np.arange(20) == 3, 0.5, 0.0)
    assert np.isfinite(estimate(Pairs(same.scores_a, same.scores_b, ratios, ratios))).all()


def test_few_prompts_and_other_shapes():
    pairs = Listed(6).pairs(FEWEST - 1, 0)
    assert (fitted(pairs) == difference(pairs)).all()
    with pytest.raises(ValueError, match="one shape"):
        Pairs(np.zeros(3), np.zeros(4), np.zeros(3), np.zeros(3))

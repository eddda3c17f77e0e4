"""Agreement between labellers, against hand numbers and other people's libraries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.feedback import Ranking, agreement
from agents.feedback.agreement import (
    Verdicts,
    bootstrap_over_prompts,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    same_order,
)
from textenv.errors import PromptError

pytest.importorskip("krippendorff", reason="krippendorff is not installed")
NAN = math.nan

tables = st.integers(2, 4).flatmap(
    lambda labellers: st.lists(
        st.lists(st.sampled_from([1.0, 0.0, -1.0, NAN]), min_size=labellers, max_size=labellers),
        min_size=2,
        max_size=12,
    ).map(np.array)
)


def both_orders(values):
    return np.concatenate([values, -values])


def test_cohens_kappa_by_hand():
    # Alike in 2 of 4. Both orders: each labeller has a quarter of ties, 3/8 of either preference.
    values = np.array([[1, 1], [0, 1], [-1, 0], [1, 1.0]])
    expected = 2 * (3 / 8) ** 2 + (1 / 4) ** 2
    assert cohen_kappa(values) == pytest.approx((0.5 - expected) / (1 - expected))
    assert cohen_kappa(np.array([[1, 1], [-1, -1.0]])) == 1
    assert math.isnan(cohen_kappa(np.array([[0, 0.0]])))  # nothing but ties


def test_fleiss_kappa_by_hand():
    # Three labellers, two pairs: all alike, and two against one. Of 3 pairs of labellers 3 and 1
    # agree; in both orders half of the verdicts are for either answer.
    values = np.array([[1, 1, 1], [1, 1, -1.0]])
    assert fleiss_kappa(values) == pytest.approx(((1 + 1 / 3) / 2 - 0.5) / 0.5)


@settings(max_examples=25)
@given(tables)
def test_cohens_kappa_is_that_of_scikit_learn(values):
    metrics = pytest.importorskip("sklearn.metrics")
    two = values[:, :2]
    ours = cohen_kappa(two)
    complete = both_orders(two[np.isfinite(two).all(1)])
    if len(complete) == 0 or np.unique(complete).size == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(metrics.cohen_kappa_score(*complete.T))


@given(tables)
def test_fleiss_kappa_is_what_its_paper_says(values):
    """Computed pair by pair and by counting, as in Fleiss (1971), equations 1 to 7."""
    complete = both_orders(values[np.isfinite(values).all(1)]).tolist()
    if not complete or len({verdict for row in complete for verdict in row}) == 1:
        assert math.isnan(fleiss_kappa(values))
        return
    n = values.shape[1]
    agree = [
        sum(a == b for i, a in enumerate(row) for b in row[:i]) / (n * (n - 1) / 2)
        for row in complete
    ]
    said = [verdict for row in complete for verdict in row]
    chance = sum((said.count(verdict) / len(said)) ** 2 for verdict in (1, 0, -1))
    observed = sum(agree) / len(agree)
    assert fleiss_kappa(values) == pytest.approx((observed - chance) / (1 - chance))


@given(tables)
def test_alpha_is_that_of_its_library_on_the_verdicts_themselves(values):
    import krippendorff

    ours = krippendorff_alpha(values)
    usable = values[np.isfinite(values).sum(1) > 1]
    seen = both_orders(usable)
    if len(usable) == 0 or np.unique(seen[np.isfinite(seen)]).size < 2:
        assert math.isnan(ours)
        return
    theirs = krippendorff.alpha(
        seen.T, level_of_measurement="ordinal", value_domain=[-1.0, 0.0, 1.0]
    )
    assert ours == pytest.approx(theirs)


@given(tables, st.randoms())
def test_which_answer_is_called_the_first_makes_no_difference(values, random):
    turned = np.array([row if random.random() < 0.5 else [-v for v in row] for row in values])
    for measure in (same_order, cohen_kappa):
        np.testing.assert_allclose(measure(values[:, :2]), measure(turned[:, :2]))
    for measure in (fleiss_kappa, krippendorff_alpha):
        np.testing.assert_allclose(measure(values), measure(turned))


def test_the_share_in_the_same_order_leaves_ties_out():
    assert same_order(np.array([[1, 1], [1, -1], [0, 1], [-1, -1], [NAN, 1]])) == 2 / 3
    assert math.isnan(same_order(np.array([[0, 1.0]])))


def test_rankings_are_matched_by_their_texts():
    ours = [Ranking("p", ("a", "bb", "c"), (1, 2, 2)), Ranking("q", ("x", "y"), (1, 2))]
    theirs = [Ranking("p", ("bb", "c", "a"), (1, 3, 2))]
    again = Ranking("p", ("c", "a"), (1, 2))  # changed their mind about these
    verdicts = Verdicts.of({"we": ours, "they": [*theirs, again]})
    assert verdicts.labellers == ("we", "they")
    assert verdicts.prompts.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(verdicts.values, [[1, -1], [1, -1], [0, 1], [1, NAN]])
    np.testing.assert_array_equal(verdicts.longer, [-1, 0, 1, 0])
    np.testing.assert_array_equal(verdicts.before, [[1, -1], [1, -1], [1, 1], [1, NAN]])


def test_equal_answers_are_no_pair():
    verdicts = Verdicts.of({"a": [Ranking("p", ("x", "x", "y"), (1, 1, 2))], "b": []})
    assert verdicts.values.shape == (1, 2)


def test_everything_together():
    first = [Ranking(f"p{n}", ("good", "bad"), (1, 2)) for n in range(20)]
    second = [Ranking(f"p{n}", ("bad", "good"), (2, 1) if n % 4 else (1, 2)) for n in range(20)]
    third = [Ranking(f"p{n}", ("good", "bad"), (1, 1)) for n in range(10)]
    found = agreement({"one": first, "two": second, "three": third})
    one_two, one_three, two_three = found.between
    assert (one_two.one, one_two.other, one_two.pairs) == ("one", "two", 20)
    assert one_two.same_order.mean == 0.75 and one_two.kappa.mean == pytest.approx(0.5)
    assert one_two.same_order.low < 0.75 < one_two.same_order.high
    assert one_three.pairs == 10 == two_three.pairs
    assert math.isnan(one_three.same_order.mean) and one_three.kappa.mean == 0
    habits = {one.name: one for one in found.habits}
    assert habits["one"].longer.mean == 1 == habits["one"].earlier.mean
    assert habits["two"].longer.mean == 0.75 and habits["two"].earlier.mean == 0.25
    assert habits["three"].ties.mean == 1 and math.isnan(habits["three"].longer.mean)
    assert found.numbers()["between"][0]["kappa"]["mean"] == one_two.kappa.mean
    assert -1 <= found.fleiss.mean <= 1 and found.alpha.low <= found.alpha.mean <= found.alpha.high


def test_intervals_resample_prompts_and_not_pairs():
    # One prompt with many pairs that are alike, one with a single pair that is not.
    values = np.array([[1.0, 1.0]] * 9 + [[1.0, -1.0]])
    prompts = np.array([0] * 9 + [1])
    share = bootstrap_over_prompts(same_order, values, prompts)
    assert share == (0.9, 0.0, 1.0)  # a quarter of the resamples hold the second prompt alone
    none = bootstrap_over_prompts(same_order, np.zeros((2, 2)), np.array([0, 1]))
    assert all(map(math.isnan, none))


def test_nothing_to_compare():
    with pytest.raises(PromptError, match="between labellers"):
        agreement({"one": []})
    with pytest.raises(PromptError, match="no two of one, two ranked the same"):
        agreement({"one": [Ranking("p", ("a", "b"), (1, 2))], "two": []})

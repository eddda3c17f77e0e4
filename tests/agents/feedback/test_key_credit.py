"""Whose token a key is about."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.feedback.from_people.key_credit import credit


def test_credit_by_hand():
    # A key at 2.0 with delays from 0.2 to 0.8 is about what was shown from 1.2 to 1.8.
    np.testing.assert_allclose(credit([0, 1, 1.5, 1.9], 2.5, 2.0), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(credit([0, 1.4], 2.5, 2.0), [1 / 3, 2 / 3])
    np.testing.assert_allclose(credit([1.6], 2.5, 2.0), [1 / 3])  # the rest was before
    np.testing.assert_allclose(credit([0], 1.0, 2.0), [0])
    np.testing.assert_allclose(credit([0, 1], 2.0, 2.0, (0.0, 1.0)), [0, 1])


@given(
    gaps=st.lists(st.floats(0.05, 2), min_size=1, max_size=8),
    late=st.floats(0, 3),
    least=st.floats(0, 1),
    width=st.floats(0.1, 2),
)
def test_shares_are_probabilities_of_the_delay(gaps, late, least, width):
    """Against sampled delays: whichever token was the last one when the key was meant."""
    shown = np.cumsum([0.0, *gaps])
    end, delay = shown[-1] + 1, (least, least + width)
    at = shown[-1] + late
    shares = credit(shown, end, at, delay)
    assert (shares >= 0).all() and shares.sum() <= 1 + 1e-9
    meant = at - np.linspace(*delay, 4001)
    places = np.searchsorted(shown, meant, side="right") - 1
    inside = (meant >= 0) & (meant < end)
    found = np.array([((places == k) & inside).mean() for k in range(len(shown))])
    np.testing.assert_allclose(shares, found, atol=2e-3)

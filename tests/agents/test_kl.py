import json
import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.kl import AdaptiveKL, FixedKL, KLController


def test_fixed_stays():
    controller = FixedKL(0.05)
    assert controller.update(kl=100.0, n=1000).coef == 0.05
    assert FixedKL(0.0).coef == 0.0


@pytest.mark.parametrize(
    ("kl", "n", "expected"),
    [
        (6.0, 100, 0.2),  # on target
        (6.6, 100, 0.202),  # 10% over for a tenth of the horizon: + 1%
        (5.4, 100, 0.198),
        (600.0, 100, 0.204),  # errors count as 20% at most
        (0.0, 100, 0.196),
        (0.0, 0, 0.2),  # nothing was sampled
        (600.0, 1000, 0.24),
        (0.0, 10**9, 0.16),  # and a huge batch moves it once
    ],
)
def test_adaptive_by_hand(kl, n, expected):
    controller = AdaptiveKL(initial=0.2, target=6.0, horizon=1000)
    assert controller.coef == 0.2
    assert controller.update(kl, n).coef == pytest.approx(expected)
    assert controller.coef == 0.2  # a new value, not a changed one


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 10**6)), max_size=50))
def test_adaptive_stays_positive(measurements):
    controller = AdaptiveKL(0.1, target=1.0, horizon=100)
    for kl, n in measurements:
        following = controller.update(kl, n)
        assert (following.coef >= controller.coef) if kl >= 1.0 else True
        assert (following.coef <= controller.coef) if kl <= 1.0 else True
        controller = following
    assert 0 < controller.coef < math.inf


def test_adaptive_steers_to_its_target():
    """A learner whose KL is inversely proportional to the coefficient settles on the target."""
    controller = AdaptiveKL(1.0, target=2.0, horizon=10)
    for _ in range(200):
        controller = controller.update(kl=0.5 / controller.coef, n=10)
    assert controller.coef == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize(
    "fresh", [FixedKL(0.1), AdaptiveKL(0.1, 6.0, 100)], ids=["fixed", "adaptive"]
)
def test_state_survives_json(fresh: KLController):
    used = fresh.update(9.0, 50).update(2.0, 10)
    state = json.loads(json.dumps(used.state()))
    assert fresh.with_state(state) == used


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="scale"):
        FixedKL(0.1).with_state(AdaptiveKL(0.1, 6.0, 100).state())


def test_controllers_are_frozen():
    with pytest.raises(FrozenInstanceError):
        FixedKL(0.1).coef = 0.2
    with pytest.raises(FrozenInstanceError):
        AdaptiveKL(0.1, 6.0, 100).scale = 2.0


@pytest.mark.parametrize("coef", [-0.1, math.nan, math.inf])
def test_fixed_refuses(coef):
    with pytest.raises(ValueError, match=f"coef must be .* got {coef}"):
        FixedKL(coef)


@pytest.mark.parametrize("name", ["initial", "target", "horizon", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_adaptive_refuses(name, value):
    arguments = {"initial": 0.1, "target": 6.0, "horizon": 100, name: value}
    with pytest.raises(ValueError, match=f"{name} must be a positive finite number, got {value}"):
        AdaptiveKL(**arguments)


def test_a_kl_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="kl=nan and n=8"):
        AdaptiveKL(0.1, 6.0, 100).update(math.nan, 8)
    with pytest.raises(ValueError, match="n=-1"):
        AdaptiveKL(0.1, 6.0, 100).update(1.0, -1)

"""What policies say, compared: log-probabilities of minus infinity included."""

import numpy as np
from numpy.typing import NDArray

from textenv.testing.making import require
from textenv.testing.policy_trial import Floats, Outputs, PolicyTrial


def differences(one: Floats, other: Floats) -> Floats:
    """|one - other|, and 0 where both are the same infinity; NaN differs from everything."""
    found: Floats = np.zeros(np.shape(one))
    np.subtract(one, other, out=found, where=one != other)
    return np.abs(found)


def require_moved(before: Floats, after: Floats) -> None:
    """Refuse weights that nothing depends on."""
    require(
        bool(differences(before, after).max() > 0),
        "other weights give the same log-probabilities: the network does not depend on its "
        "parameters",
    )


def require_same(
    trial: PolicyTrial,
    one: Outputs,
    other: Outputs,
    why: str,
    mask: NDArray[np.bool_] | None = None,
) -> None:
    """Log-probabilities, values and entropies agree at the chosen tokens, or in `mask`."""
    places = trial.texts[1] if mask is None else mask
    names = ("log-probability", "value", "entropy")
    for name, first, second in zip(names, one, other, strict=True):
        require_equal(trial, first, second, places, name, why)


def require_equal(
    trial: PolicyTrial, one: Floats, other: Floats, places: NDArray[np.bool_], name: str, why: str
) -> None:
    """Two arrays (S, L) agree at `places`; the message names the worst place, and then `why`."""
    found = np.where(places, differences(one, other), 0.0)
    # NaN is larger than any difference here.
    row, place = np.unravel_index(int(found.argmax()), found.shape)
    require(
        found[row, place] < trial.tolerance,
        f"the {name} at place {place} of row {row} is {one[row, place]:.5f} and "
        f"{other[row, place]:.5f}: {why}",
    )

"""Rules for the arithmetic of a learner: advantages, losses, KL estimates, standardisation.

The functions that an agent offers are tried on small arrays with known results. Rules about other
functions are skipped. Arrays are aligned with the tokens: entry [s, p] belongs to token p of
sequence s, and only places of the mask were chosen.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from textenv.testing.agent_rules import Floats, Trial
from textenv.testing.making import require

Bools: TypeAlias = NDArray[np.bool_]

LOGPROBS = np.array([[-0.5, -1.5, -0.3, -2.0], [-1.0, -0.2, -0.7, -0.9]])
ADVANTAGES = np.array([[1.0, -2.0, 0.5, 3.0], [-1.0, 2.0, 1.5, -0.5]])
MASK = np.array([[False, True, True, False], [False, False, True, True]])


class LearningFunctions(Protocol):
    """Functions on numpy arrays that an agent may offer beside `Agent`; each is optional."""

    def advantages(
        self,
        rewards: Floats,
        values: Floats,
        mask: Bools,
        next_values: Floats,
        terminated: Bools,
        truncated: Bools,
    ) -> Floats:
        """Advantages (S, L) with discount and lambda 1: the return less the value.

        `rewards`, `values` and `mask` are (S, L). `terminated` and `truncated` are (S,), and so is
        `next_values`, the value after the last chosen token, whether or not the episode ended.
        """
        ...

    def loss(self, logprobs: Floats, old: Floats, advantages: Floats, mask: Bools) -> float:
        """The policy's loss, to be minimised, from arrays (S, L)."""
        ...

    def kl(self, logprobs: Floats, ref_logprobs: Floats, mask: Bools) -> Floats:
        """Estimates (S, L) of KL(policy || reference) at tokens drawn from the policy."""
        ...

    def standardise(self, values: Floats, mask: Bools) -> Floats:
        """Values (S, L) with mean 0 and standard deviation 1 over the mask."""
        ...


def terminated_episodes_are_worth_no_more(trial: Trial) -> None:
    """After termination nothing is added to the return, even if truncation is set too."""
    for truncated in (False, True):
        found = _two_steps(trial, terminated=True, truncated=truncated)
        _require_close(found, [[0.0, 1.0, 1.0]], "the value after a terminated episode counts as 0")


def truncated_episodes_bootstrap(trial: Trial) -> None:
    """After truncation the value of the rest is added to the return."""
    found = _two_steps(trial, terminated=False, truncated=True)
    _require_close(found, [[0.0, 6.0, 6.0]], "a truncated return continues with the value after it")


def short_sequences_are_cut_where_they_were_cut(trial: Trial) -> None:
    """A sequence ends as its own flags say, not at the width of the batch."""
    mask = np.array([[True, True, False, False], [True, True, True, True]])
    rewards, values = np.where(mask, 1.0, 99.0), np.where(mask, 0.0, 77.0)
    flags = np.array([False, True])
    found = offered(trial, "advantages")(rewards, values, mask, np.array([5.0, 5.0]), flags, ~flags)
    expected = [[7.0, 6.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0]]
    _require_close(
        np.where(mask, found, 0.0),
        expected,
        "the first row was truncated after two tokens and continues with the value 5, the second "
        "is finished",
    )


def tokens_of_others_are_no_steps(trial: Trial) -> None:
    """Tokens between two choices, such as a tool's answer, change no advantage."""
    advantages = offered(trial, "advantages")
    ends = np.array([2.0]), np.array([False]), np.array([True])
    rewards, values = np.array([[1.0, 2.0, 4.0]]), np.array([[0.5, 0.25, 1.0]])
    close = advantages(rewards, values, np.ones((1, 3), dtype=bool), *ends)
    wide = np.full((1, 5), 50.0)
    places = [0, 3, 4]
    mask = np.zeros((1, 5), dtype=bool)
    mask[0, places] = True
    spread_rewards, spread_values = wide.copy(), wide.copy()
    spread_rewards[0, places], spread_values[0, places] = rewards[0], values[0]
    found = advantages(spread_rewards, spread_values, mask, *ends)
    _require_close(
        np.asarray(found)[:, places],
        close,
        "rewards, values and discounts of tokens that the agent did not choose must not count",
    )


def only_chosen_tokens_are_in_the_loss(trial: Trial) -> None:
    """Values at other places, NaN included, do not change the loss."""
    loss = offered(trial, "loss")
    old = LOGPROBS - 0.1
    before = float(loss(LOGPROBS, old, ADVANTAGES, MASK))
    for garbage in (7.0, -1000.0, np.nan):
        arrays = [np.where(MASK, array, garbage) for array in (LOGPROBS, old, ADVANTAGES)]
        after = float(loss(*arrays, MASK))
        require(
            np.isfinite(after) and abs(after - before) < 1e-6,
            f"with {garbage} at places that were not chosen the loss goes from {before} to "
            f"{after}: select by the mask before any arithmetic, since 0 * NaN is NaN",
        )


def better_choices_become_likelier(trial: Trial) -> None:
    """Raising the probability of a token with a positive advantage lowers the loss."""
    loss = offered(trial, "loss")
    for row, place in np.argwhere(MASK):
        moved = LOGPROBS.copy()
        moved[row, place] += 0.01
        change = float(loss(moved, LOGPROBS, ADVANTAGES, MASK)) - float(
            loss(LOGPROBS, LOGPROBS, ADVANTAGES, MASK)
        )
        require(
            change * ADVANTAGES[row, place] < 0,
            f"a likelier token of advantage {ADVANTAGES[row, place]} changes the loss by "
            f"{change:.5f}: the sign is wrong, or the token's place",
        )


def the_kl_is_that_of_policy_to_reference(trial: Trial) -> None:
    """The policy's mean estimate is the exact KL; the KL of a policy to itself is 0."""
    kl = offered(trial, "kl")
    p, q = np.array([0.5, 0.2, 0.15, 0.1, 0.05]), np.array([0.1, 0.3, 0.2, 0.2, 0.2])
    mask = np.ones((1, 5), dtype=bool)
    logp, logq = np.log(p)[None], np.log(q)[None]
    found = float((p * np.asarray(kl(logp, logq, mask))[0]).sum())
    exact = float((p * np.log(p / q)).sum())
    reverse = float((q * np.log(q / p)).sum())
    require(
        abs(found - exact) < 1e-6,
        f"the expected estimate is {found:.5f}, KL(policy || reference) is {exact:.5f} and the "
        f"reverse {reverse:.5f}: look at sign and direction",
    )
    own = np.abs(np.asarray(kl(logp, logp, mask))).max()
    require(own < 1e-6, f"the KL of a policy to itself is estimated by {own}, not 0")


def the_kl_is_masked_where_the_tokens_are(trial: Trial) -> None:
    """Estimates are 0 outside the mask, and each depends on its own token alone."""
    kl = offered(trial, "kl")
    found = np.asarray(kl(LOGPROBS, LOGPROBS - 1.0, MASK))
    garbage = np.asarray(kl(np.where(MASK, LOGPROBS, -9.0), LOGPROBS - 1.0, MASK))
    require(
        bool((found[~MASK] == 0).all() and (found[MASK] != 0).all() and (found == garbage).all()),
        f"with the mask {MASK.astype(int).tolist()} the estimates are {found.round(3).tolist()}: "
        "the mask is off by one, or what it leaves out counts",
    )


def standardising_survives_few_values(trial: Trial) -> None:
    """With 0, 1 or 2 chosen values nothing becomes NaN, and the mean of two becomes 0."""
    standardise = offered(trial, "standardise")
    for count in (0, 1, 2):
        mask = np.arange(4)[None] < count
        found = np.asarray(standardise(np.array([[3.0, 5.0, 9.0, 1.0]]), mask))[mask]
        require(
            bool(np.isfinite(found).all()),
            f"{count} values were standardised to {found}: their deviation is 0 or missing",
        )
    require(
        abs(float(found.mean())) < 1e-5 and abs(float(np.abs(found).mean()) - 1) < 0.5,
        f"3 and 5 were standardised to {found}: the mean must be 0 and must not be added back, the "
        "standard deviation 1",
    )


LEARNING_RULES: tuple[Callable[[Trial], None], ...] = (
    terminated_episodes_are_worth_no_more,
    truncated_episodes_bootstrap,
    short_sequences_are_cut_where_they_were_cut,
    tokens_of_others_are_no_steps,
    only_chosen_tokens_are_in_the_loss,
    better_choices_become_likelier,
    the_kl_is_that_of_policy_to_reference,
    the_kl_is_masked_where_the_tokens_are,
    standardising_survives_few_values,
)
"""The rules for a learner's arithmetic; each docstring states its rule in a sentence."""


def offered(trial: Trial, name: str) -> Callable[..., Any]:
    """The agent's function `name`; without it the rule is skipped."""
    function: Callable[..., Any] | None = getattr(trial.agent, name, None)
    if function is None:
        raise SkipTest(f"the agent offers no function `{name}`")
    return function


def _two_steps(trial: Trial, terminated: bool, truncated: bool) -> Floats:
    """Advantages of two choices behind a prompt, rewards 0 and 1, value 5 after them."""
    mask = np.array([[False, True, True]])
    found = offered(trial, "advantages")(
        np.array([[0.0, 0.0, 1.0]]),
        np.zeros((1, 3)),
        mask,
        np.array([5.0]),
        np.array([terminated]),
        np.array([truncated]),
    )
    return np.where(mask, np.asarray(found), 0.0)


def _require_close(found: Any, expected: Any, why: str) -> None:
    require(
        bool(np.allclose(found, expected, atol=1e-5)),
        f"the advantages are {np.asarray(found).round(4).tolist()} and should be "
        f"{np.asarray(expected).round(4).tolist()}: {why}",
    )

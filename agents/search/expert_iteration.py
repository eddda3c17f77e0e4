"""Expert iteration: search answers with the policy, learn what the search prefers, repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithm import Algorithm, Needs
from agents.optimisation.bounds import Checked, bounded
from agents.rollout import Rollout
from policies import PolicyOutputs
from textenv.errors import UnmetNeedError

Target = Callable[[Rollout], NDArray[np.float64]]
"""The probability that each move of a `SearchCollector`'s rollout should have, shape (S,); they sum
to 1 over the moves of a state."""


def visit_counts(rollout: Rollout) -> NDArray[np.float64]:
    """AlphaZero's target: the share of the visits that went through each move, shape (S,).

    Iterated, it ends at one answer alone, which need not be the best. The counts are near those of
    a policy that maximises Q - lambda KL(prior || policy) (Grill et al., 2020, arXiv:2007.12509).
    With the policy itself as prior, only one that puts all on a move of the largest Q stays as it
    is, and Q is that of answers as the policy gives them by then.
    """
    visits, state = _array(rollout, "visits"), _array(rollout, "state").astype(int)
    return visits / np.maximum(np.bincount(state, visits)[state], 1)


@dataclass(frozen=True)
class Regularised(Checked):
    """A target of prior x exp(Q / beta), which maximises the mean of Q - beta KL(target || prior).

    Grill et al., "Monte-Carlo tree search as regularized policy optimization" (2020),
    arXiv:2007.12509, with the KL the other way round than AlphaZero's counts have it. The prior is
    the reference, if the learner has one, and else the policy. With a reference it is a leash: Q is
    backed up softly, as in `textenv.testing.exact.soft_optimum`,

        V(x) = beta log of the sum over a of prior(a|x) exp(Q(x, a) / beta)

    from scores of finished answers and the values of leaves. Where the tree holds all answers the
    target is the optimum pi_ref exp(r / beta) / Z itself; with leaves that are judged by
    continuations it is not exact, since those pay no KL.

    Attributes:
        beta: Weight of the KL to the prior, in reward per nat.
    """

    beta: float = bounded(0.1, above=0)

    def __call__(self, rollout: Rollout) -> NDArray[np.float64]:
        """The target of each move, shape (S,)."""
        priors = np.log(_array(rollout, "prior"))
        if rollout.ref_logprobs is not None:
            ratio = (rollout.ref_logprobs - rollout.logprobs).where(rollout.mask, 0.0).sum(1)
            priors = priors + ratio.double().cpu().numpy()
        state, below = (_array(rollout, name).astype(int) for name in ("state", "below"))
        return soft_targets(priors, _array(rollout, "q"), state, below, self.beta)


def soft_targets(
    log_priors: NDArray[np.float64],
    q: NDArray[np.float64],
    state: NDArray[np.int64],
    below: NDArray[np.int64],
    beta: float,
) -> NDArray[np.float64]:
    """The target prior x exp(Q / beta) of the moves of a tree, with soft values from below, (m,).

    Args:
        log_priors: Of each move, shape (m,); made to sum to 1 over the moves of a state.
        q: What each move is worth where nothing is known below it, shape (m,).
        state: Number of each move's state, shape (m,), rising: parents come before children.
        below: Number of the state behind each move, -1 where there is none, shape (m,).
        beta: Weight of the KL.
    """
    begins = np.flatnonzero(np.diff(state, prepend=-1, append=state[-1] + 1))
    values, targets = np.zeros(len(begins) - 1), np.zeros(len(q))
    for number in reversed(range(len(begins) - 1)):
        moves = slice(begins[number], begins[number + 1])
        prior = log_priors[moves] - np.logaddexp.reduce(log_priors[moves])
        worth = np.where(below[moves] >= 0, values[below[moves]], q[moves])
        tilted = prior + worth / beta
        total = np.logaddexp.reduce(tilted)
        values[number], targets[moves] = beta * total, np.exp(tilted - total)
    return targets


@dataclass(frozen=True)
class ExpertIteration(Algorithm):
    """Imitates what a search makes of the policy (Anthony et al., 2017; Silver et al., 2018).

        loss = -sum over states x of N(x) sum over moves a of target(a|x) log pi(a|x) / sum of N(x)

    "Thinking Fast and Slow with Deep Learning and Tree Search", arXiv:1705.08439; AlphaZero. Use it
    where a search finds answers that samples hardly ever hit, since it learns from all that the
    search has tried. Each update costs a search of every prompt. Its rollouts come from a search:

        Learner(policy, envs, ExpertIteration(target=Regularised(0.1)), n_episodes=64,
                collector=partial(SearchCollector, how=MCTS(), budget=Budget(100)))

    A state counts as often as it was visited, N(x). Left out: a value head that is trained on the
    search's values, and answers that are played move by move from the target.

    Attributes:
        target: What to imitate: `visit_counts`, or `Regularised(beta)`.
    """

    needs: ClassVar[Needs] = Needs(whole_episodes=True)

    target: Target = visit_counts

    def advantages(self, rollout: Rollout) -> Tensor:
        """The weight of each move: its target, times the visits of its state, shape (S,).

        Raises:
            UnmetNeedError: The rollout is of no search, or of searches that took no move.
        """
        state = _array(rollout, "state").astype(int)
        visits = np.bincount(state, _array(rollout, "visits"))[state]
        if not visits.any():
            raise UnmetNeedError(
                "no move was taken in any of the searches, so there is nothing to imitate: give "
                "the SearchCollector a larger budget"
            )
        weights = torch.from_numpy(self.target(rollout) * visits)
        return weights.to(rollout.logprobs.device, rollout.logprobs.dtype)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Cross-entropy to the targets."""
        assert batch.advantages is not None
        logprobs = outputs.logprobs.where(batch.mask, 0.0).sum(1)
        # Weights sum to visits: below 1 is none, of prompts whose budget the root has used up.
        return -(batch.advantages * logprobs).sum() / batch.advantages.sum().clamp(min=1)


def _array(rollout: Rollout, name: str) -> NDArray[np.float64]:
    if name not in (rollout.extra or {}):
        raise UnmetNeedError(
            "ExpertIteration learns from searches, and this rollout is of none: give the learner "
            "collector=partial(agents.search.SearchCollector, how=MCTS(), budget=Budget(100))"
        )
    assert rollout.extra is not None
    return rollout.extra[name].double().cpu().numpy()

"""How much each component of the reward has paid to each row in its running episode."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.episode import Episode
from textenv.infos import masked_info
from textenv.reward_terms import weigh
from textenv.rewards import RewardTerm, StepBatch, call_on_episodes, call_on_steps


class RewardComponents:
    """The terms of a reward, and the sum that each has paid since the episode began.

    Args:
        terms: The terms that `textenv.rewards.reward_terms` gives.
        count: Number of rows.

    Attributes:
        dense: Whether any term is paid at every step.
        may_abstain: Whether any term may leave an episode without a value.
        sums: Unweighted sums, shape (count, len(terms)), float64; NaN where a term abstained.
    """

    def __init__(self, terms: Sequence[RewardTerm], count: int):
        self.terms = tuple(terms)
        self.dense = any(term.dense for term in self.terms)
        self.may_abstain = any(term.may_abstain for term in self.terms)
        self.sums = np.zeros((count, len(self.terms)))

    def pay_step(self, rows: NDArray[np.intp] | slice, batch: StepBatch) -> NDArray[np.float64]:
        """Weighted sum of the dense terms for the k `rows` in `batch`, shape (k,).

        Raises:
            RewardError: A term raised, or did not give k finite numbers within `LARGEST` of 0.
        """
        total = np.zeros(len(batch))
        for column, term in enumerate(self.terms):
            if term.dense:
                scores = call_on_steps(term, batch)
                self.sums[rows, column] += scores
                total += weigh(term, scores, batch)
        return total

    def pay_episodes(
        self, rows: NDArray[np.intp], episodes: Sequence[Episode]
    ) -> NDArray[np.float64]:
        """Weighted sum of the other terms for the `episodes` that ended in `rows`, shape (k,).

        Raises:
            RewardError: A term raised, or did not give k finite numbers within `LARGEST` of 0.
        """
        total = np.zeros(len(rows))
        for column, term in enumerate(self.terms):
            if not term.dense:
                scores = call_on_episodes(term, episodes)
                self.sums[rows, column] = scores
                if term.may_abstain:
                    scores = np.nan_to_num(scores)
                total += weigh(term, scores, episodes)
        return total

    def paid(self) -> NDArray[np.float64]:
        """What all terms have paid each row since its episode began, shape (count,)."""
        weights = np.array([term.weight for term in self.terms])
        total: NDArray[np.float64] = np.nan_to_num(self.sums) @ weights
        return total

    def scored(self) -> NDArray[np.bool_]:
        """Whether any term that counts has paid or judged each row's episode, shape (count,)."""
        # A term of weight 0 is only reported, so it makes no score.
        counts = np.array([term.weight != 0 for term in self.terms])
        abstained = np.isnan(self.sums[:, counts if counts.any() else ~counts]).all(1)
        return np.logical_not(abstained)

    def info(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """The sums of the rows that `ended`, by the names of the terms that did not abstain."""
        told: dict[str, Any] = {}
        for column, term in enumerate(self.terms):
            paid = ended & ~np.isnan(self.sums[:, column])
            told |= masked_info({term.name: np.where(paid, self.sums[:, column], 0.0)}, paid)
        return told

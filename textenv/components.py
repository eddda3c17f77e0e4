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
        sums: Unweighted sums, shape (count, len(terms)), float64.
    """

    def __init__(self, terms: Sequence[RewardTerm], count: int):
        self.terms = tuple(terms)
        self.dense = any(term.dense for term in self.terms)
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
                total += weigh(term, scores, episodes)
        return total

    def info(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """The sums of the rows that `ended`, by the names of the terms."""
        sums = {
            term.name: np.where(ended, self.sums[:, column], 0.0)
            for column, term in enumerate(self.terms)
        }
        return masked_info(sums, ended)

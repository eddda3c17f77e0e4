"""PPO with values from continuations instead of a value head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import returns
from agents.algorithm import Needs
from agents.algorithms.advantages import PolicyGradient
from agents.algorithms.clipping import clipped_loss
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs
    from textenv.starts import Start


ANSWERS_AT_ONCE = 2048
"""Continuations that are in memory together."""


@dataclass(frozen=True)
class VinePPO(PolicyGradient):
    """PPO whose values are the means of continuations (Kazemnejad et al., 2024).

        V(s) = mean of what `continuations` answers that play on from s earn
        A_t  = rewards of step k + V(s_{k+1}) - V(s_k)     for every token of step k
        loss = -mean over tokens of min(ratio_t A_t, clip(ratio_t, 1 - clip, 1 + clip) A_t)

    arXiv:2410.01679, equations 9 and 10. Use it where credit should go to the steps that earned it
    and a value head cannot learn which those are: on reasoning, or in conversations. The values
    have no bias, whatever the policy, so the expected gradient is the exact one before advantages
    are standardised. They cost tokens: about `continuations` times half an answer for each step of
    each answer, all of which count in the training's tokens. `PPO` needs one value head and no
    continuation; `RLOO` compares whole answers.

    A step is `step_tokens` chosen tokens, and ends with its turn; override `steps` for others, such
    as lines. KL penalties are part of the rewards and of the values. Advantages are standardised
    within each minibatch. Left out: a cache of values of texts that are equal.

    Attributes:
        continuations: Answers that play on from each beginning of a step; more make the values
            less noisy and cost as many more tokens.
        step_tokens: Chosen tokens that share one advantage; fewer tell tokens apart and cost more
            continuations.
        clip: A ratio of new to old probability outside 1 - clip to 1 + clip earns nothing more;
            smaller is more careful.
    """

    needs: ClassVar[Needs] = Needs(whole_episodes=True)

    continuations: int = bounded(9, minimum=1)
    step_tokens: int = bounded(8, minimum=1)
    clip: float = bounded(0.2, above=0)

    def steps(self, rollout: Rollout) -> Tensor:
        """The step of each chosen token, counted from 1 and -1 elsewhere, shape (S, L), int64."""
        begins = returns.turn_begins(rollout.turns)
        place = rollout.mask.cumsum(1) - 1  # among the chosen tokens of the sequence
        in_turn = place - place.where(begins, 0).cummax(1).values
        begins = rollout.mask & (in_turn % self.step_tokens == 0)
        return begins.cumsum(1).where(rollout.mask, -1)

    def look_ahead(
        self, rollout: Rollout, collect_from: Callable[[Sequence[Start], int], Rollout]
    ) -> Rollout:
        """The rollout with the mean return of continuations as the value where a step begins."""
        begins = returns.turn_begins(self.steps(rollout))
        starts = [rollout.start(sequence, place) for sequence, place in begins.nonzero().tolist()]
        means: list[float] = []
        # In parts: nothing but the returns is kept of so many answers.
        part = max(ANSWERS_AT_ONCE // self.continuations, 1)
        for begin in range(0, len(starts), part):
            played = collect_from(starts[begin : begin + part], self.continuations)
            # An answer without a score says nothing of the text before it.
            means += played.episode_returns.view(-1, self.continuations).nanmean(1).tolist()
        self._fill(means, rollout, begins)
        # As exact as the rewards that they are compared with.
        values = rollout.rewards.new_zeros(rollout.rewards.shape)
        values[begins] = values.new_tensor(means)
        return dataclasses.replace(rollout, values=values)

    @staticmethod
    def _fill(means: list[float], rollout: Rollout, begins: Tensor) -> None:
        """Where no continuation has a score, the value is what followed in the answer itself.

        So that step changes nothing, and the one before it is judged by both.
        """
        paid = rollout.rewards.where(rollout.mask, 0.0)
        sequence, end, following = -1, 0, 0.0
        for number, (row, place) in reversed([*enumerate(begins.nonzero().tolist())]):
            if row != sequence:  # the last step of its answer
                sequence, end, following = row, paid.shape[1], 0.0
            if math.isnan(means[number]):
                means[number] = paid[row, place:end].sum().item() + following
            end, following = place, means[number]

    def advantages(self, rollout: Rollout) -> Tensor:
        """What each step changed, shape (S, L)."""
        return returns.gae_by_turn(
            rewards=rollout.rewards,
            values=rollout.values,
            mask=rollout.mask,
            # The value head is not trained: its value at the end of a cut episode means nothing.
            bootstrap_values=rollout.bootstrap_values.new_zeros(len(rollout)),
            gamma=1.0,
            lam=0.0,
            turns=self.steps(rollout),
        )

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Clipped surrogate, averaged over tokens."""
        assert batch.advantages is not None
        advantages = returns.standardise(batch.advantages, batch.mask)
        return clipped_loss(batch, outputs, advantages, self.clip)

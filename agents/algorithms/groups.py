"""Algorithms without a value head; most of them compare answers to the same prompt.

They need whole episodes, so the learner has `n_episodes`. All but REINFORCE++ need groups, so the
environment has a `group_size`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Needs
from agents.algorithms.advantages import PolicyGradient
from agents.algorithms.clipping import clipped_loss
from agents.algorithms.credit import (
    BY_COMPARISON,
    Credit,
    check_credit,
    credit_field,
    credit_function,
)
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs


class Comparison(PolicyGradient):
    """What algorithms share that compare the answers to one prompt, or their turns."""

    credit: Credit

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds, and a credit that does not exist."""
        super().__post_init__()
        check_credit(self.credit, BY_COMPARISON)

    def advantages(self, rollout: Rollout) -> Tensor:
        """What `credit` compares, each in its group, shape (S,), or (S, L) by turn."""
        advantages: Tensor = credit_function(self.credit)(self.compare, rollout)
        return advantages

    @abstractmethod
    def compare(self, scores: Tensor, penalties: Tensor, groups: Tensor) -> Tensor:
        """How much better each of N is than its group; all are (N,)."""


@dataclass(frozen=True)
class RLOO(Comparison):
    """REINFORCE with the mean of the others as baseline (Ahmadian et al., 2024).

        A_s = r_s - mean of the other r,    loss = -mean over sequences of sum_t ratio_t A_s

    arXiv:2402.14740. Use it when an answer is scored as a whole, each prompt gets two or more
    answers, and the gradient should be unbiased. The more answers to a prompt, the better the
    baseline. `GRPO` clips the ratio, so it can learn from each rollout several times.

    It takes one step on each rollout. The ratio is 1 there, and its gradient is that of
    log pi(a_t). The gradient is an unbiased estimate of that of the expected return, KL penalty
    included. In episodes that ran on across an update, the ratio weighs the tokens of the earlier
    policy. Left out: the clip of TRL's RLOO.

    Attributes:
        credit: What is compared in a conversation: whole ones (by_answer), or each turn with the
            group's turns of the same number (by_turn). A function of your own takes what
            `returns.by_turn` takes.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    credit: Credit = credit_field(BY_COMPARISON)

    def compare(self, scores: Tensor, penalties: Tensor, groups: Tensor) -> Tensor:
        """Returns minus the mean of the others of their group; all are (N,)."""
        return returns.leave_one_out(scores - penalties, groups)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Policy gradient of whole answers."""
        assert batch.advantages is not None
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(batch.advantages),
            mask=batch.mask,
        )
        return -losses.sequence_sum(weighted, batch.mask)


@dataclass(frozen=True)
class GRPO(Comparison):
    """Group-relative policy optimisation (Shao et al., 2024).

        A_s = (r_s - group mean) / (std of the group's scores + eps),    r = score - KL penalty
        loss = -mean over sequences of the mean over tokens of
               min(ratio_t A_s, clip(ratio_t) A_s)

    arXiv:2402.03300, equation 3. Use it when an answer is scored as a whole, each prompt gets
    several answers, and there is no value head to train. A group whose scores are all equal teaches
    nothing but its KL penalty, undivided; `DAPO` replaces such groups. Dividing by each answer's
    length and by the group's spread biases the gradient; `DrGRPO` does neither. Deviations are
    those of the population: with groups of 4 advantages are 1.155 times those of TRL, which takes
    the sample's. Left out: the KL term in the loss; use the learner's KL penalty in the reward.

    Attributes:
        clip: A ratio of new to old probability below 1 - clip earns nothing more; smaller is more
            careful.
        clip_high: A ratio of new to old probability above 1 + clip_high earns nothing more; None
            takes `clip`.
        credit: What is compared in a conversation: whole ones (by_answer), or each turn with the
            group's turns of the same number (by_turn). A function of your own takes what
            `returns.by_turn` takes.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    clip: float = bounded(0.2, above=0)
    clip_high: float | None = bounded(None, above=0)
    credit: Credit = credit_field(BY_COMPARISON)

    def compare(self, scores: Tensor, penalties: Tensor, groups: Tensor) -> Tensor:
        """Returns within each group, in units of the spread of its scores; all are (N,)."""
        return returns.group_standardised_less(scores, penalties, groups)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Clipped surrogate."""
        assert batch.advantages is not None
        clip_high = self.clip if self.clip_high is None else self.clip_high
        surrogate = losses.clipped_surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(batch.advantages),
            mask=batch.mask,
            clip_low=self.clip,
            clip_high=clip_high,
        )
        clipped = losses.clip_fraction(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            mask=batch.mask,
            clip_low=self.clip,
            clip_high=clip_high,
        )
        return -self.mean(surrogate, batch.mask), {"clip_fraction": clipped}

    def mean(self, surrogate: Tensor, mask: Tensor) -> Tensor:
        """One number from every token's surrogate; each answer weighs the same."""
        return losses.sequence_mean(surrogate, mask)


@dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO done right (Liu et al., 2025): without the biases of length and of spread.

        A_s = r_s - group mean
        loss = -mean over sequences of sum_t min(ratio_t A_s, clip(ratio_t) A_s)

    arXiv:2503.20783. Use it instead of `GRPO` where answers differ in length: GRPO weighs the
    tokens of long answers less. At the sampling policy its gradient is (n - 1) / n of the exact one
    for groups of n, which is that of `RLOO` times this factor. Left out: the paper's constant
    divisor; choose the learning rate instead.
    """

    def compare(self, scores: Tensor, penalties: Tensor, groups: Tensor) -> Tensor:
        """Returns minus the mean of their group; all are (N,)."""
        return returns.group_centred(scores - penalties, groups)

    def mean(self, surrogate: Tensor, mask: Tensor) -> Tensor:
        """Sums over tokens: each token weighs the same, whatever its answer's length."""
        return losses.sequence_sum(surrogate, mask)


@dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with decoupled clips and dynamic sampling (Yu et al., 2025).

        loss = -mean over tokens of min(ratio_t A_s, clip(ratio_t, 1 - low, 1 + high) A_s)

    arXiv:2503.14476. Use it when many prompts are too easy or too hard, so that all answers of a
    group score alike. Such groups teach nothing, and further rollouts replace them; an update may
    therefore cost several rollouts. The higher `clip_high` keeps the entropy up. Left out: the soft
    punishment of overlong answers, which belongs in the reward.

    Attributes:
        max_rollouts: Collect at most this many rollouts for one update; 1 drops the groups that
            teach nothing without replacing them.
    """

    clip_high: float | None = 0.28
    max_rollouts: int = bounded(5, minimum=1)

    def gather(self, collect: Callable[[], Rollout]) -> Rollout:
        """Rollouts until as many answers teach something as one rollout holds."""
        kept: list[Rollout] = []
        for _ in range(self.max_rollouts):
            rollout = collect()
            # Scores, not returns: KL penalties make the returns of every group differ.
            teaching = returns.differs_in_group(rollout.scores, rollout.groups)
            if teaching.any():
                kept.append(rollout.select(teaching.nonzero().squeeze(1)))
            if sum(map(len, kept)) >= len(rollout):
                break
        # An update needs a rollout, even one that teaches nothing.
        return rollout.cat(kept) if kept else rollout

    def mean(self, surrogate: Tensor, mask: Tensor) -> Tensor:
        """The mean over all tokens: long answers weigh more."""
        return losses.masked_mean(surrogate, mask)


@dataclass(frozen=True)
class REINFORCEPlusPlus(PolicyGradient):
    """REINFORCE++ (Hu, 2025): PPO's clip, no value head, advantages standardised over the rollout.

        G_t = sum of the rewards from t on, KL penalties included
        A_t = (G_t - mean of G) / (std of the G without penalties + eps)    over all tokens
        loss = -mean over tokens of min(ratio_t A_t, clip(ratio_t) A_t)

    arXiv:2501.03262. Use it when each prompt gets one answer and there is no value head to train.
    The mean over the whole rollout is the baseline, so easy prompts look good and hard ones bad;
    with several answers to each prompt, `RLOO` and `GRPO` compare like with like. Left out: the
    clipping of rewards.

    Attributes:
        clip: A ratio of new to old probability outside 1 - clip to 1 + clip earns nothing more;
            smaller is more careful.
    """

    needs: ClassVar[Needs] = Needs(whole_episodes=True)

    clip: float = bounded(0.2, above=0)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Returns from each token on, in units of their spread without penalties, shape (S, L)."""
        # The value head is not trained, so its value at the end of a cut episode means nothing.
        nothing = rollout.bootstrap_values.new_zeros(len(rollout))
        penalties = rollout.token_penalties
        scores, penalties = (
            returns.discounted_returns(paid, rollout.mask, nothing, 1.0)
            for paid in (rollout.rewards + penalties, penalties)
        )
        return returns.standardised_less(scores, penalties, rollout.mask)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Clipped surrogate, averaged over tokens."""
        assert batch.advantages is not None
        return clipped_loss(batch, outputs, batch.advantages, self.clip)

"""Policy gradients on trees of answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from agents import losses, returns
from agents.algorithm import Needs
from agents.algorithms.advantages import PolicyGradient
from agents.algorithms.clipping import clipped_loss
from agents.algorithms.credit import BY_TREE, Credit, check_credit, credit_field, credit_function
from agents.optimisation.bounds import bounded
from textenv.errors import NothingToLearnWarning

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs
    from textenv.starts import Start


@dataclass(frozen=True)
class TreePO(PolicyGradient):
    """PPO's clip on a tree of answers that branch where segments end (Li et al., 2025).

        A(segment) = mean over the texts j it stands behind, from the prompt on, of
                     [what answers through the segment earn from j on - what all from j on do]
        loss       = -mean over tokens of share_t min(ratio_t A_t, clip(ratio_t, 1 -+ clip) A_t)

    arXiv:2508.17445. Use it where an answer is worked out in steps and there is no value head: an
    answer that branches is judged by several ends, and they share what was sampled before. Levels
    grow one after another: where the first segment of an answer ends, then where the second of all
    answers so far ends, and so on until `budget` is spent. Where it does not last for all,
    those that branch are drawn. `VinePPO` plays continuations too, but learns from the
    answers alone; here all are learned from. With `credit` a segment is judged by what it changed
    (`tree_changes`), or in an unbiased way (`tree_leave_one_out`).

    A token counts as the share of the prompt's answers that it stands for (`tree_shares`), as if
    each answer were written out, though it is sampled, scored and encoded once. The mean of shares
    over the tokens is 1. Advantages are standardised within each minibatch. Left out: early stops
    of repeating answers and the fallback to other texts when they end, branching by the
    probability of tokens, the division by the deviation of an answer's advantages, clip-higher and
    dynamic sampling as in `DAPO`, whose groups without spread are left out there. Answers branch
    when they have ended, and not while they run; what is drawn has the same law.

    Attributes:
        segment_tokens: Chosen tokens of a segment; fewer make deeper trees.
        branches: Continuations from each text that branches, beside the answer itself.
        budget: Chosen tokens of all continuations, as a multiple of those of the answers from the
            prompt; about, since their lengths are not known before.
        clip: A ratio of new to old probability outside 1 - clip to 1 + clip earns nothing more;
            smaller is more careful.
        credit: What a segment is compared with. A function of your own takes what
            `returns.tree_changes` takes.

    Warns:
        NothingToLearnWarning: No answer branches, and none has another to its prompt.
    """

    needs: ClassVar[Needs] = Needs(whole_episodes=True)

    segment_tokens: int = bounded(8, minimum=1)
    branches: int = bounded(1, minimum=1)
    budget: float = bounded(2.0, above=0)
    clip: float = bounded(0.2, above=0)
    credit: Credit = credit_field(BY_TREE)

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds, and a credit that does not exist."""
        super().__post_init__()
        check_credit(self.credit, BY_TREE)

    def look_ahead(
        self, rollout: Rollout, collect_from: Callable[[Sequence[Start], int], Rollout]
    ) -> Rollout:
        """The rollout with continuations, and who branches off whom."""
        left = self.budget * rollout.num_tokens
        begun = [0] * len(rollout)  # chosen tokens of each answer before its own first one
        for level in count(1):
            at, following = [], []
            for sequence, before in enumerate(begun):
                own = rollout.mask[sequence].nonzero().squeeze(1)
                behind = level * self.segment_tokens - before
                # One that begins here is a child of this text already.
                if 0 < behind < len(own):
                    at.append((sequence, int(own[behind])))
                    following.append(len(own) - behind)
            if level == 1 and not at and len(rollout.groups.unique()) == len(rollout):
                warnings.warn(
                    f"no answer has more than segment_tokens={self.segment_tokens} tokens, so none "
                    "branches, and there is no other answer to its prompt to compare it with: take "
                    "fewer segment_tokens, or a group_size of 2 or more",
                    NothingToLearnWarning,
                    stacklevel=2,
                )
            affordable = int(left / (self.branches * np.mean(following))) if at else 0
            if affordable <= 0:
                return rollout.branched([], 1, collect_from)
            if affordable < len(at):
                assert rollout.starts is not None  # as texts could branch
                seed = rollout.starts[0].episode_seed or 0
                drawn = np.random.default_rng([seed, level]).permutation(len(at))[:affordable]
                at = [at[number] for number in sorted(drawn.tolist())]
            tokens = rollout.num_tokens
            rollout = rollout.branched(at, self.branches, collect_from)
            begun += [level * self.segment_tokens] * (len(rollout) - len(begun))
            left -= rollout.num_tokens - tokens
        raise AssertionError("levels end with the answers")

    def advantages(self, rollout: Rollout) -> Tensor:
        """What `credit` says of each segment, shape (S, L)."""
        advantages: Tensor = credit_function(self.credit)(
            rollout.rewards, rollout.mask, rollout.parents, rollout.groups
        )
        return advantages

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Clipped surrogate, each token weighed by its share."""
        assert batch.advantages is not None
        advantages = returns.standardise(batch.advantages, batch.mask)
        shares = returns.tree_shares(batch.mask, batch.parents, batch.groups).to(advantages)
        shares = shares / losses.masked_mean(shares, batch.mask)
        return clipped_loss(batch, outputs, advantages * shares, self.clip)

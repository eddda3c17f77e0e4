"""Returns, advantages and baselines: from rewards to what multiplies the gradient.

A rollout is S sequences padded to L tokens. Per-token arrays are (S, L) and aligned with the
tokens: entry [s, p] belongs to the choice of token p. `mask[s, p]` is True where the agent chose
the token. Elsewhere (prompts, tool outputs, padding) arrays may hold anything, NaN included. Values
are therefore selected with `torch.where` and never multiplied by the mask.

Rewards and scores are best given in float64, as a `Rollout` holds them: scores near 1e8 that differ
by 1 are equal in float32. Results keep the dtype.

Credit is a pure function of a rollout that knows its turns: by token (`gae`), by turn
(`gae_by_turn`) or by answer (`gae_by_answer`) where values are trained, and `by_turn` or
`by_answer` where answers are compared. In a tree of answers a segment is judged by all answers that
go through it (`tree_changes`, `tree_leave_one_out`, `tree_ancestors`).

Standard deviations are those of the population (divided by n, not n - 1), so one value has one.
Nothing here carries a gradient to the policy: the results are constants of the loss.
"""

from agents.returns.groups import (
    by_answer,
    by_turn,
    differs_in_group,
    group_centred,
    group_sizes,
    group_standardised,
    group_standardised_less,
    is_group_best,
    leave_one_out,
)
from agents.returns.scaling import rescale, standardise, standardised_less
from agents.returns.steps import (
    answer_begins,
    discounted_returns,
    gae,
    gae_by_answer,
    gae_by_turn,
    turn_begins,
    turn_returns,
)
from agents.returns.trees import (
    Tree,
    tree_ancestors,
    tree_changes,
    tree_leave_one_out,
    tree_of,
    tree_shares,
)

__all__ = [
    "Tree",
    "answer_begins",
    "by_answer",
    "by_turn",
    "differs_in_group",
    "discounted_returns",
    "gae",
    "gae_by_answer",
    "gae_by_turn",
    "group_centred",
    "group_sizes",
    "group_standardised",
    "group_standardised_less",
    "is_group_best",
    "leave_one_out",
    "rescale",
    "standardise",
    "standardised_less",
    "tree_ancestors",
    "tree_changes",
    "tree_leave_one_out",
    "tree_of",
    "tree_shares",
    "turn_begins",
    "turn_returns",
]

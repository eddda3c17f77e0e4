"""Rules for policies: networks that read padded rows of ids, act with a cache and are trained.

They hold for anything with the methods of `policies.Policy`. What a rule changes is a copy.
"""

import copy
import tempfile
from collections.abc import Callable

import numpy as np

from textenv.testing.making import require
from textenv.testing.policy_choices import (
    a_rollout_equals_outputs,
    choices_are_as_frequent_as_probable,
    chosen_tokens_are_tokens,
    greedy_takes_the_likeliest,
)
from textenv.testing.policy_comparison import (
    differences,
    require_equal,
    require_moved,
    require_same,
)
from textenv.testing.policy_gradients import gradients_reach_the_network
from textenv.testing.policy_trial import ROWS, Outputs, PolicyTrial, move, outputs, reading


def the_future_does_not_matter(trial: PolicyTrial) -> None:
    """A choice depends on the text before it: other tokens behind it change nothing."""
    tokens, mask = trial.texts
    changed, before, up_to = tokens.copy(), np.zeros_like(mask), np.zeros_like(mask)
    for row, chosen in enumerate(mask):
        places = np.flatnonzero(chosen)
        cut, end = places[len(places) // 2], places[-1] + 1
        changed[row, cut:end] = (tokens[row, cut:end] + 1) % trial.vocab_size
        before[row, places[0] : cut] = up_to[row, places[0] : cut + 1] = True
    one, other = (outputs(trial.policy, some, mask) for some in (tokens, changed))
    why = "the network looks ahead. A hidden state knows its own token and those before it only"
    require_equal(trial, one.entropies, other.entropies, up_to, "entropy", why)
    require_equal(trial, one.values, other.values, up_to, "value", why)
    require_equal(trial, one.logprobs, other.logprobs, before, "log-probability", why)


def nothing_random_is_left_on(trial: PolicyTrial) -> None:
    """Computed twice, outputs agree."""
    one, other = (outputs(trial.policy, *trial.texts) for _ in range(2))
    why = "computed twice, it differs. Leave dropout out, or switch it off with policy.eval()"
    require_same(trial, one, other, why)


def a_text_alone_reads_as_in_a_batch(trial: PolicyTrial) -> None:
    """Outputs of a text do not depend on the other rows of the batch."""
    tokens, mask = trial.texts
    together = outputs(trial.policy, tokens, mask)
    alone = [outputs(trial.policy, tokens[row, None], mask[row, None]) for row in range(len(mask))]
    joined = Outputs(*(np.concatenate(parts) for parts in zip(*alone, strict=True)))
    why = (
        "a text alone is read otherwise than in a batch. Positions, norms and attention must not "
        "depend on other rows"
    )
    require_same(trial, together, joined, why)


def padding_does_not_matter(trial: PolicyTrial) -> None:
    """Outputs of a text do not depend on the width it is padded to."""
    tokens, mask = trial.texts
    narrow = outputs(trial.policy, tokens, mask)
    for more in (1, 5):
        wide_tokens = np.pad(tokens, ((0, 0), (0, more)), constant_values=trial.vocab_size)
        wide = outputs(trial.policy, wide_tokens, np.pad(mask, ((0, 0), (0, more))))
        cut = Outputs(*(part[:, : mask.shape[1]] for part in wide))
        why = f"{more} more columns of padding change it. Positions must not count padding"
        require_same(trial, narrow, cut, why)


def cached_steps_equal_uncached(trial: PolicyTrial) -> None:
    """With a cache rows say what they say without, however they grow, shrink and are replaced."""
    policy, cache = trial.policy, trial.policy.new_cache(ROWS, trial.width)
    for number, observations in enumerate(trial.game()):
        both = reading(policy, observations, cache), reading(policy, observations)
        for what, cached, plain in zip(("log-probability", "value"), *both, strict=True):
            difference = differences(cached, plain).reshape(ROWS, -1).max(1)
            row = int(difference.argmax())
            require(
                difference[row] < trial.tolerance,
                f"step {number}, row {row}: with the cache a {what} differs by "
                f"{difference[row]:.2g} from that without. Look at `extend`: it continues each row "
                "from the plan's position, which may lie before what was stored; and at the "
                "store's `copy_prefix`, by which a row takes over another one's beginning",
            )


def changed_weights_are_noticed(trial: PolicyTrial) -> None:
    """Once the weights have changed, nothing that was encoded with the old ones is used."""
    policy = copy.deepcopy(trial.policy)
    observations = trial.padded(trial.beginnings)
    cache = policy.new_cache(*observations.shape)
    before, _ = reading(policy, observations, cache)
    move(policy)
    fresh, _ = reading(policy, observations)
    require_moved(before, fresh)
    difference = float(differences(reading(policy, observations, cache)[0], fresh).max())
    require(
        difference < trial.tolerance,
        f"after a change of the weights the cache is out by {difference:.2g}: it holds what the "
        "old weights made. Give all parameters to the PrefixCache, and keep nothing else made of "
        "them",
    )


def ids_that_are_no_tokens_are_refused(trial: PolicyTrial) -> None:
    """An id beyond the padding, or a negative one, raises a ValueError."""
    for wrong in (trial.vocab_size + 1, -1):
        observations = trial.padded(trial.beginnings)
        observations[0, 0] = wrong
        try:
            trial.policy.act(observations)
        except ValueError:
            continue
        require(
            False,
            f"act took an observation with the id {wrong}; tokens are 0 to {trial.vocab_size - 1}, "
            f"and {trial.vocab_size} is the padding. Raise a ValueError, as `Policy.last_hidden` "
            "does",
        )


def saved_weights_come_back(trial: PolicyTrial) -> None:
    """What `save` wrote makes another policy of the same shape the same one."""
    other = trial.made()
    move(other)
    one = outputs(trial.policy, *trial.texts)
    require_moved(one.logprobs, outputs(other, *trial.texts).logprobs)
    with tempfile.TemporaryDirectory() as folder:
        trial.policy.save(folder)
        other.load_weights(folder)
    why = (
        "the second number is from a policy that took the weights `save` wrote. What a network "
        "computes with is a parameter or a buffer, or is saved and loaded by methods of its own"
    )
    require_same(trial, one, outputs(other, *trial.texts), why)


def a_frozen_copy_stays(trial: PolicyTrial) -> None:
    """`frozen_copy` says what the policy said when it was made, and takes no gradient."""
    policy = copy.deepcopy(trial.policy)
    frozen = policy.frozen_copy()
    before = outputs(policy, *trial.texts)
    move(policy)
    require_moved(before.logprobs, outputs(policy, *trial.texts).logprobs)
    why = "the second number is from a frozen copy, after the policy's weights changed"
    require_same(trial, before, outputs(frozen, *trial.texts), why)
    taking = [name for name, parameter in frozen.named_parameters() if parameter.requires_grad]
    require(not taking, f"weights of a frozen copy take a gradient: {', '.join(taking[:3])}")


POLICY_RULES: tuple[Callable[[PolicyTrial], None], ...] = (
    chosen_tokens_are_tokens,
    ids_that_are_no_tokens_are_refused,
    nothing_random_is_left_on,
    the_future_does_not_matter,
    a_text_alone_reads_as_in_a_batch,
    padding_does_not_matter,
    cached_steps_equal_uncached,
    changed_weights_are_noticed,
    a_rollout_equals_outputs,
    choices_are_as_frequent_as_probable,
    greedy_takes_the_likeliest,
    gradients_reach_the_network,
    saved_weights_come_back,
    a_frozen_copy_stays,
)
"""What a policy keeps to; each docstring says it in a sentence."""

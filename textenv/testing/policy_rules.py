"""Rules for policies: networks that read padded rows of ids, act with a cache and are trained.

They hold for anything with the methods of `policies.Policy`. What a rule changes is a copy.
"""

import copy
import tempfile
from collections.abc import Callable
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from textenv.testing.making import require
from textenv.testing.policy_trial import (
    ROWS,
    STEPS,
    Floats,
    Outputs,
    PolicyTrial,
    array,
    move,
    outputs,
    reading,
    tensors,
)


def chosen_tokens_are_tokens(trial: PolicyTrial) -> None:
    """`act` gives a token, a log-probability and a value for each row, whatever its length."""
    observations = trial.padded(trial.beginnings)
    step = trial.policy.act(observations, generator=np.random.default_rng(0))
    shape = (len(observations),)
    shapes = [np.shape(part) for part in (step.actions, step.logprobs, step.values)]
    require(
        shapes == [shape] * 3,
        f"actions, log-probabilities and values have the shapes {shapes}; one of each is due for "
        f"each of {shape[0]} rows",
    )
    actions, logprobs = np.asarray(step.actions), np.asarray(step.logprobs)
    wrong = (actions < 0) | (actions >= trial.vocab_size)
    require(
        not wrong.any(),
        f"token {actions[wrong][:1]} was chosen; tokens are 0 to {trial.vocab_size - 1}, and "
        f"{trial.vocab_size} is the padding",
    )
    require(
        bool(np.isfinite(step.values).all() and np.isfinite(logprobs).all())
        and logprobs.max() <= trial.tolerance,
        f"a log-probability is above 0, or not a number: {logprobs[:4]}; values are "
        f"{np.asarray(step.values)[:4]}",
    )


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
    _require_equal(trial, one.entropies, other.entropies, up_to, "entropy", why)
    _require_equal(trial, one.values, other.values, up_to, "value", why)
    _require_equal(trial, one.logprobs, other.logprobs, before, "log-probability", why)


def nothing_random_is_left_on(trial: PolicyTrial) -> None:
    """Computed twice, outputs agree."""
    one, other = (outputs(trial.policy, *trial.texts) for _ in range(2))
    why = "computed twice, it differs. Leave dropout out, or switch it off with policy.eval()"
    _require_same(trial, one, other, why)


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
    _require_same(trial, together, joined, why)


def padding_does_not_matter(trial: PolicyTrial) -> None:
    """Outputs of a text do not depend on the width it is padded to."""
    tokens, mask = trial.texts
    narrow = outputs(trial.policy, tokens, mask)
    for more in (1, 5):
        wide_tokens = np.pad(tokens, ((0, 0), (0, more)), constant_values=trial.vocab_size)
        wide = outputs(trial.policy, wide_tokens, np.pad(mask, ((0, 0), (0, more))))
        cut = Outputs(*(part[:, : mask.shape[1]] for part in wide))
        why = f"{more} more columns of padding change it. Positions must not count padding"
        _require_same(trial, narrow, cut, why)


def cached_steps_equal_uncached(trial: PolicyTrial) -> None:
    """With a cache rows say what they say without, however they grow, shrink and are replaced."""
    policy, cache = trial.policy, trial.policy.new_cache(ROWS, trial.width)
    for number, observations in enumerate(trial.game()):
        both = reading(policy, observations, cache), reading(policy, observations)
        for what, cached, plain in zip(("log-probability", "value"), *both, strict=True):
            difference = np.abs(cached - plain).reshape(ROWS, -1).max(1)
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
    _require_moved(before, fresh)
    difference = float(np.abs(reading(policy, observations, cache)[0] - fresh).max())
    require(
        difference < trial.tolerance,
        f"after a change of the weights the cache is out by {difference:.2g}: it holds what the "
        "old weights made. Give all parameters to the PrefixCache, and keep nothing else made of "
        "them",
    )


def a_rollout_equals_outputs(trial: PolicyTrial) -> None:
    """What `act` said of its choices, step by step, is what `outputs` says of whole texts."""
    policy, prompts = trial.policy, trial.beginnings[:ROWS]
    rng = np.random.default_rng(3)
    observations = trial.padded(prompts)
    lengths = np.array([len(prompt) for prompt in prompts])
    every = np.arange(len(prompts))
    cache = policy.new_cache(*observations.shape)
    told = Outputs(*(np.zeros(observations.shape) for _ in Outputs._fields))
    mask = np.zeros(observations.shape, dtype=bool)
    while lengths.max() < trial.width:
        every_token, _ = reading(policy, observations, cache)
        step = policy.act(observations, cache, generator=rng)
        told.logprobs[every, lengths] = step.logprobs
        told.values[every, lengths] = step.values
        told.entropies[every, lengths] = -(np.exp(every_token) * every_token).sum(1)
        observations[every, lengths], mask[every, lengths] = step.actions, True
        lengths = lengths + 1
    why = (
        "the first number is from a rollout, the second from `outputs`: the update begins with a "
        "ratio that is not 1. Look for a temperature or a mask at one of them only"
    )
    _require_same(trial, told, outputs(policy, observations, mask), why, mask)


def greedy_takes_the_likeliest(trial: PolicyTrial) -> None:
    """With deterministic=True `act` takes the token of the largest log-probability."""
    for observations in list(trial.game())[:: STEPS // 4]:
        logprobs, _ = reading(trial.policy, observations)
        step = trial.policy.act(observations, deterministic=True)
        best = logprobs.max(1)
        taken = np.take_along_axis(logprobs, np.asarray(step.actions)[:, None], 1)[:, 0]
        row = int((best - taken).argmax())
        require(
            (best - taken)[row] < trial.tolerance,
            f"act(deterministic=True) took token {step.actions[row]} of log-probability "
            f"{taken[row]:.4f}; token {logprobs[row].argmax()} has {best[row]:.4f}",
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


def gradients_reach_the_network(trial: PolicyTrial) -> None:
    """Log-probabilities of choices have finite gradients, in more than the heads."""
    policy = copy.deepcopy(trial.policy)
    heads = ("value_head.", "token_head.")
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    inner = {name: p for name, p in trained.items() if not name.startswith(heads)}
    if not inner:
        raise SkipTest("no weight of the network is trained")
    policy.outputs(*tensors(policy, *trial.texts)).logprobs.sum().backward()
    gradients = {name: array(p.grad) for name, p in inner.items() if p.grad is not None}
    for name, gradient in gradients.items():
        require(
            bool(np.isfinite(gradient).all()),
            f"the gradient of the weight {name} is not finite",
        )
    require(
        any(gradient.any() for gradient in gradients.values()),
        f"no gradient reaches {', '.join(list(inner)[:3])}: `outputs` must compute with gradients, "
        "without detach() or no_grad()",
    )


def saved_weights_come_back(trial: PolicyTrial) -> None:
    """What `save` wrote makes another policy of the same shape the same one."""
    other = trial.made()
    move(other)
    one = outputs(trial.policy, *trial.texts)
    _require_moved(one.logprobs, outputs(other, *trial.texts).logprobs)
    with tempfile.TemporaryDirectory() as folder:
        trial.policy.save(folder)
        other.load_weights(folder)
    why = (
        "the second number is from a policy that took the weights `save` wrote. What a network "
        "computes with is a parameter or a buffer, or is saved and loaded by methods of its own"
    )
    _require_same(trial, one, outputs(other, *trial.texts), why)


def a_frozen_copy_stays(trial: PolicyTrial) -> None:
    """`frozen_copy` says what the policy said when it was made, and takes no gradient."""
    policy = copy.deepcopy(trial.policy)
    frozen = policy.frozen_copy()
    before = outputs(policy, *trial.texts)
    move(policy)
    _require_moved(before.logprobs, outputs(policy, *trial.texts).logprobs)
    why = "the second number is from a frozen copy, after the policy's weights changed"
    _require_same(trial, before, outputs(frozen, *trial.texts), why)
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
    greedy_takes_the_likeliest,
    gradients_reach_the_network,
    saved_weights_come_back,
    a_frozen_copy_stays,
)
"""What a policy keeps to; each docstring says it in a sentence."""


def _require_moved(before: Floats, after: Floats) -> None:
    require(
        bool(np.abs(before - after).max() > 0),
        "other weights give the same log-probabilities: the network does not depend on its "
        "parameters",
    )


def _require_same(
    trial: PolicyTrial,
    one: Outputs,
    other: Outputs,
    why: str,
    mask: NDArray[np.bool_] | None = None,
) -> None:
    places = trial.texts[1] if mask is None else mask
    names = ("log-probability", "value", "entropy")
    for name, first, second in zip(names, one, other, strict=True):
        _require_equal(trial, first, second, places, name, why)


def _require_equal(
    trial: PolicyTrial, one: Floats, other: Floats, places: NDArray[np.bool_], name: str, why: str
) -> None:
    differences = np.where(places, np.abs(one - other), 0.0)
    # NaN is larger than any difference here.
    row, place = np.unravel_index(int(differences.argmax()), differences.shape)
    require(
        differences[row, place] < trial.tolerance,
        f"the {name} at place {place} of row {row} is {one[row, place]:.5f} and "
        f"{other[row, place]:.5f}: {why}",
    )

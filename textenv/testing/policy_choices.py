"""Rules for what a policy chooses, and for what it tells of its choices."""

from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from textenv.testing.making import require
from textenv.testing.policy_comparison import require_same
from textenv.testing.policy_trial import (
    ROWS,
    STEPS,
    Floats,
    Outputs,
    PolicyTrial,
    log_softmax,
    outputs,
    reading,
)

SETTINGS = ((1.0, False), (0.7, True))
"""Temperatures, and whether there are action masks."""
DRAWS, DRAWN_AT_ONCE = 3200, 64
BINS, LEAST_DUE = 16, 5.0
"""Bins of a chi-squared test, and the count that should at least be due in each."""
MOST_DEVIATIONS = 5.0
"""By chance a test is further out once in three million."""


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


def a_rollout_equals_outputs(trial: PolicyTrial) -> None:
    """What `act` said of its choices, step by step, is what `outputs` says of whole texts.

    With a temperature and action masks too, which `act` keeps to.
    """
    for temperature, masked in SETTINGS:
        _play(trial, temperature, masked)


def _play(trial: PolicyTrial, temperature: float, masked: bool) -> None:
    policy, prompts = trial.policy, trial.beginnings[:ROWS]
    rng = np.random.default_rng(3)
    observations = trial.padded(prompts)
    lengths = np.array([len(prompt) for prompt in prompts])
    every = np.arange(len(prompts))
    cache = policy.new_cache(*observations.shape)
    told = Outputs(*(np.zeros(observations.shape) for _ in Outputs._fields))
    mask = np.zeros(observations.shape, dtype=bool)
    allowed = np.ones((*observations.shape, trial.vocab_size), dtype=bool)
    setting = f"at temperature {temperature}{' and with action masks' * masked}"
    while lengths.max() < trial.width:
        plain, _ = reading(policy, observations, cache)
        may = _random_masks(plain, rng) if masked else None
        step = policy.act(
            observations, cache, temperature=temperature, action_masks=may, generator=rng
        )
        if may is not None:
            allowed[every, lengths] = may
            refused = ~may[every, step.actions]
            require(
                not refused.any(),
                f"{setting} act chose token {np.asarray(step.actions)[refused][:1]}, which "
                "the action mask of its row rules out",
            )
        told.logprobs[every, lengths] = step.logprobs
        told.values[every, lengths] = step.values
        told.entropies[every, lengths] = _entropies(_tempered(plain, temperature, may))
        observations[every, lengths], mask[every, lengths] = step.actions, True
        lengths = lengths + 1
    why = (
        f"the first number is from a rollout {setting}, the second from `outputs`: the update "
        "begins with a ratio that is not 1. Look for a temperature or a mask at one of them only"
    )
    given = allowed[mask] if masked else None
    said = outputs(policy, observations, mask, temperature, given)
    require_same(trial, told, said, why, mask)


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


def choices_are_as_frequent_as_probable(trial: PolicyTrial) -> None:
    """`act` draws tokens as often as their probabilities say: a chi-squared test.

    Tokens are put into bins of about the same probability, from the likeliest to the rarest.
    """
    policy, rng = trial.policy, np.random.default_rng(5)
    observations = trial.padded([trial.beginnings[0]] * DRAWN_AT_ONCE)
    cache = policy.new_cache(*observations.shape)
    plain = reading(policy, observations, cache)[0][:1]
    # At this temperature logits differ by about 1: neither uniform, as before training, nor sure.
    apart = max(float(plain[np.isfinite(plain)].std()), 0.02)
    compared = False
    for temperature, masked in ((1.0, False), (apart, True)):
        may = _random_masks(plain, rng) if masked else None
        probabilities = np.exp(_tempered(plain, temperature, may))[0]
        given = None if may is None else np.repeat(may, DRAWN_AT_ONCE, axis=0)
        drawn = np.concatenate(
            [
                policy.act(
                    observations,
                    cache,
                    temperature=temperature,
                    action_masks=given,
                    generator=rng,
                ).actions
                for _ in range(DRAWS // DRAWN_AT_ONCE)
            ]
        )
        counts = np.bincount(drawn, minlength=trial.vocab_size)
        seen, due = _binned(counts, probabilities * len(drawn))
        if len(due) < 2:
            continue
        compared = True
        worst = int(counts.argmax())
        require(
            _deviations(seen, due) < MOST_DEVIATIONS,
            f"of {len(drawn)} choices after the same text at temperature {temperature:.3g}"
            f"{' with an action mask' * masked}, {counts[worst]} are token {worst}; its "
            f"probability is {probabilities[worst]:.3g}. Draw from the distribution whose "
            "log-probabilities are told, with the numbers of `generator`",
        )
    if not compared:
        raise SkipTest("one token has nearly all of the probability")


def _random_masks(logprobs: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Half of the tokens of each row (n, V), the likeliest among them."""
    masks = rng.random(logprobs.shape) < 0.5
    masks[np.arange(len(masks)), logprobs.argmax(1)] = True
    return masks


def _tempered(logprobs: Floats, temperature: float, masks: NDArray[np.bool_] | None) -> Floats:
    """The distributions (n, V) that are left at a temperature and under masks, as logarithms."""
    logits = logprobs / temperature
    return log_softmax(logits if masks is None else np.where(masks, logits, -np.inf))


def _entropies(logprobs: Floats) -> Floats:
    """Entropies of distributions (n, V) in nats, where 0 log 0 = 0."""
    finite = np.where(np.isneginf(logprobs), 0.0, logprobs)
    entropies: Floats = -(np.exp(logprobs) * finite).sum(1)
    return entropies


def _binned(counts: NDArray[np.int64], due: Floats) -> tuple[Floats, Floats]:
    """Counts (V,) and expected counts (V,) summed in bins, at least `LEAST_DUE` due in each."""
    order = np.argsort(-due)
    before = np.cumsum(due[order]) - due[order]
    bins = np.minimum((before / due.sum() * BINS).astype(int), BINS - 1)
    seen, wanted = (
        np.bincount(bins, x[order], minlength=BINS).astype(float)
        for x in (counts.astype(float), due)
    )
    large = wanted >= LEAST_DUE
    # What is due too rarely to be tested alone goes into one bin, and counts if it is enough.
    seen = np.append(seen[large], seen[~large].sum())
    wanted = np.append(wanted[large], wanted[~large].sum())
    kept = slice(None) if wanted[-1] >= LEAST_DUE else slice(-1)
    return seen[kept], wanted[kept]


def _deviations(seen: Floats, due: Floats) -> float:
    """Chi-squared as standard deviations of a normal distribution (Wilson and Hilferty, 1931)."""
    freedom = len(due) - 1
    spread = 2 / (9 * freedom)
    chi_squared = ((seen - due) ** 2 / due).sum()
    return float(((chi_squared / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5)

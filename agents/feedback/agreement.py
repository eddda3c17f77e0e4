"""Whether labellers agree: people, judges and programs that ranked the same answers.

The unit is a pair of answers to one prompt, of which a labeller prefers one, or neither. Which
answer of a pair is called the first is arbitrary, so every pair counts in both orders, and no
figure depends on it. Intervals come from the bootstrap over prompts: the pairs of a prompt are not
independent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.evaluation.intervals import Interval, plain
from agents.feedback.rankings import Ranking
from textenv.errors import PromptError
from textenv.imports import optional

FIRST, TIE, SECOND = 1.0, 0.0, -1.0
"""A verdict: the first answer is better, neither is, the second is; NaN where there is none."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Verdicts:
    """What each labeller says of n pairs of answers.

    Attributes:
        labellers: Their names.
        values: `FIRST`, `TIE`, `SECOND` or NaN, shape (n, labellers), float64.
        prompts: Number of each pair's prompt, shape (n,), int64.
        longer: Whether the first answer has more characters than the second, 1, 0 or -1, (n,).
        before: For each labeller, whether the first answer stands before the second in its
            ranking, 1 or -1; NaN where there is no verdict; shape (n, labellers).
    """

    labellers: tuple[str, ...]
    values: NDArray[np.float64]
    prompts: NDArray[np.int64]
    longer: NDArray[np.float64]
    before: NDArray[np.float64]

    @classmethod
    def of(cls, rankings: Mapping[str, Iterable[Ranking]]) -> "Verdicts":
        """The verdicts in rankings, by the name of their labeller.

        Answers are known by their texts. Where a labeller has ranked two answers to a prompt more
        than once, the last time counts. Answers that read the same make no pair.

        Raises:
            PromptError: There are fewer than two labellers.
        """
        names = tuple(rankings)
        if len(names) < 2:
            there = ", ".join(names) or "none"
            raise PromptError(f"agreement is between labellers: give two or more, not {there}")
        said: dict[tuple[str, str, str], dict[int, tuple[float, float]]] = {}
        for column, name in enumerate(names):
            for ranking in rankings[name]:
                placed = enumerate(zip(ranking.answers, ranking.ranks, strict=True))
                for (i, (one, rank)), (j, (other, behind)) in combinations(placed, 2):
                    if one == other:
                        continue
                    verdict = float(np.sign(behind - rank))
                    key, order = (ranking.prompt, one, other), float(np.sign(j - i))
                    if other < one:
                        key, verdict, order = (ranking.prompt, other, one), -verdict, -order
                    said.setdefault(key, {})[column] = verdict, order
        numbers = {prompt: n for n, prompt in enumerate(dict.fromkeys(key[0] for key in said))}
        table = np.full((len(said), len(names), 2), np.nan)
        for row, of_pair in enumerate(said.values()):
            for column, both in of_pair.items():
                table[row, column] = both
        return cls(
            names,
            table[:, :, 0],
            np.array([numbers[key[0]] for key in said], dtype=np.int64),
            np.array([np.sign(len(key[1]) - len(key[2])) for key in said], dtype=np.float64),
            table[:, :, 1],
        )


# -------------------------------------------------------------------- measures


def same_order(values: NDArray[np.float64]) -> float:
    """Share of the pairs that both labellers order alike, of those that neither calls a tie.

    1/2 is chance. NaN if there are none.

    Args:
        values: Verdicts of two labellers, shape (n, 2).
    """
    ordered = values[(np.abs(values) == 1).all(1)]
    return float((ordered[:, 0] == ordered[:, 1]).mean()) if len(ordered) else np.nan


def cohen_kappa(values: NDArray[np.float64]) -> float:
    """Agreement of two labellers beyond chance, ties being a verdict of its own.

    (observed - expected) / (1 - expected), where chance is that of each labeller's own shares of
    verdicts (Cohen, "A Coefficient of Agreement for Nominal Scales", 1960). 1 is perfect, 0 chance.
    NaN if both give one verdict only.

    Args:
        values: Verdicts of two labellers, shape (n, 2); pairs that lack one are left out.
    """
    counts = _counted(_both_orders(_complete(values)))  # (2n, 2, verdicts)
    if not len(counts):
        return np.nan
    observed = (counts[:, 0] * counts[:, 1]).sum(1).mean()
    expected = (counts[:, 0].mean(0) * counts[:, 1].mean(0)).sum()
    return _beyond_chance(observed, expected)


def fleiss_kappa(values: NDArray[np.float64]) -> float:
    """Agreement of several labellers beyond chance; chance is the same for all of them.

    Fleiss, "Measuring Nominal Scale Agreement Among Many Raters" (1971). NaN where `cohen_kappa`
    is.

    Args:
        values: Verdicts, shape (n, labellers); pairs that lack one are left out.
    """
    counts = _counted(_both_orders(_complete(values))).sum(1)  # (2n, verdicts)
    if not len(counts):
        return np.nan
    labellers = values.shape[1]
    observed = (counts * (counts - 1)).sum(1).mean() / (labellers * (labellers - 1))
    expected = ((counts.mean(0) / labellers) ** 2).sum()
    return _beyond_chance(observed, expected)


def krippendorff_alpha(values: NDArray[np.float64]) -> float:
    """Krippendorff's alpha for ordered verdicts: a tie lies between the two preferences.

    Any number of labellers, each of whom may lack any pair. Computed by the package `krippendorff`
    (Krippendorff, "Content Analysis", 1980). NaN where `cohen_kappa` is, or if no pair has two
    verdicts.

    Args:
        values: Verdicts, shape (n, labellers).

    Raises:
        MissingExtraError: The package `krippendorff` is not installed.
    """
    with optional("krippendorff", extra="evaluation", purpose="Krippendorff's alpha"):
        import krippendorff
    counts = _counted(_both_orders(values)).sum(1)
    counts = counts[counts.sum(1) > 1]
    if (counts.sum(0) > 0).sum() < 2:
        return np.nan
    return float(
        krippendorff.alpha(
            value_counts=counts,
            value_domain=[SECOND, TIE, FIRST],
            level_of_measurement="ordinal",
        )
    )


def bootstrap_over_prompts(
    measure: Callable[[NDArray[np.float64]], float],
    values: NDArray[np.float64],
    prompts: NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A measure with its percentile interval under resampling of prompts.

    Resamples for which the measure is NaN are left out; the interval is NaN if it is for all.

    Args:
        measure: A function of verdicts, shape (n, labellers).
        values: The verdicts.
        prompts: Number of each pair's prompt, shape (n,).
        confidence: Probability that the interval holds the true value, 0 to 1.
        resamples: Number of resamples.
        seed: Seed of the resamples.
    """
    rows = [np.flatnonzero(prompts == number) for number in np.unique(prompts)]
    generator = np.random.default_rng(seed)
    found = np.array(
        [
            measure(values[np.concatenate([rows[i] for i in drawn])])
            for drawn in generator.integers(0, len(rows), (resamples if rows else 0, len(rows)))
        ]
    )
    found = found[~np.isnan(found)]
    if not len(found):
        return Interval(measure(values), np.nan, np.nan)
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(measure(values), float(low), float(high))


# -------------------------------------------------------------------- all of it


@dataclass(frozen=True)
class PairOfLabellers:
    """How far two labellers agree.

    Attributes:
        one: Name of the one.
        other: Name of the other.
        pairs: Pairs of answers of which both say something.
        same_order: See `same_order`.
        kappa: See `cohen_kappa`.
    """

    one: str
    other: str
    pairs: int
    same_order: Interval
    kappa: Interval


@dataclass(frozen=True)
class Habits:
    """What a labeller tends to, whatever the answers say.

    Attributes:
        name: Name of the labeller.
        pairs: Pairs of answers of which it says something.
        ties: Share of these that it calls a tie.
        longer: Share of the ordered pairs in which it prefers the longer answer.
        earlier: Share of the ordered pairs in which it prefers the answer that stands first in its
            ranking. People's rankings list answers as they were shown, in random order.
    """

    name: str
    pairs: int
    ties: Interval
    longer: Interval
    earlier: Interval


@dataclass(frozen=True)
class Agreement:
    """The agreement of all labellers.

    Attributes:
        between: Each two of them.
        habits: Each of them.
        fleiss: Over the pairs of which all say something; see `fleiss_kappa`.
        alpha: Over all pairs; see `krippendorff_alpha`.
    """

    between: Sequence[PairOfLabellers]
    habits: Sequence[Habits]
    fleiss: Interval
    alpha: Interval

    def numbers(self) -> dict[str, Any]:
        """All figures as plain values for JSON; intervals become `{"mean", "low", "high"}`."""
        numbers: dict[str, Any] = plain(self)
        return numbers


def agreement(rankings: Mapping[str, Iterable[Ranking]], *, seed: int = 0) -> Agreement:
    """How far labellers agree who ranked the same answers, each two and all together.

    Args:
        rankings: Rankings by the name of their labeller.
        seed: Seed of the bootstrap.

    Raises:
        PromptError: There are fewer than two labellers, or no two of them ranked the same answers.
        MissingExtraError: The package `krippendorff` is not installed.
    """
    verdicts = Verdicts.of(rankings)
    values, prompts = verdicts.values, verdicts.prompts
    if not (np.isfinite(values).sum(1) > 1).any():
        raise PromptError(
            f"no two of {', '.join(verdicts.labellers)} ranked the same answers to the same prompt"
        )

    def interval(measure: Callable[..., float], rows: Any, of: Any) -> Interval:
        return bootstrap_over_prompts(measure, of[rows], prompts[rows], seed=seed)

    between = []
    for i, j in combinations(range(len(verdicts.labellers)), 2):
        of_two, every = values[:, [i, j]], slice(None)
        both = np.isfinite(of_two).all(1)
        between.append(
            PairOfLabellers(
                verdicts.labellers[i],
                verdicts.labellers[j],
                int(both.sum()),
                interval(same_order, both, of_two),
                interval(cohen_kappa, both, of_two),
            )
        )
    habits = []
    for column, name in enumerate(verdicts.labellers):
        own = np.isfinite(values[:, column])
        beside = {
            "longer": np.stack([values[:, column], verdicts.longer], 1),
            "earlier": np.stack([values[:, column], verdicts.before[:, column]], 1),
        }
        tendencies = {what: interval(same_order, own, both) for what, both in beside.items()}
        ties = interval(_tied, own, values[:, [column]])
        habits.append(Habits(name, int(own.sum()), ties, **tendencies))
    return Agreement(
        between,
        habits,
        interval(fleiss_kappa, every, values),
        interval(krippendorff_alpha, every, values),
    )


def _tied(values: NDArray[np.float64]) -> float:
    return float((values == TIE).mean()) if len(values) else np.nan


def _complete(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values).all(1)]


def _both_orders(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([values, -values])


def _counted(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 at each verdict, shape (n, labellers, verdicts)."""
    return (values[:, :, None] == [SECOND, TIE, FIRST]).astype(np.float64)


def _beyond_chance(observed: float, expected: float) -> float:
    return float((observed - expected) / (1 - expected)) if expected < 1 else np.nan

"""Several policies side by side: one row of figures for each.

Everything is measured on answers to the same prompts. `compare` lets policies answer and measures
their answers. `compare_answers` takes evaluations, whoever gave the answers: a policy, best-of-n,
or a policy that was prompted in another way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from agents.evaluation.answers import Evaluation, evaluate
from agents.evaluation.intervals import Interval, bootstrap_interval, win_rate
from agents.evaluation.judges import Judge, PairJudge
from agents.evaluation.safety import ToxicityClassifier
from agents.evaluation.text_measures import distinct_n, perplexity
from policies import Policy
from textenv import Prompt, TextVectorEnv
from textenv.errors import UnscoredError


@dataclass(frozen=True)
class Row:
    """How good one policy's answers are.

    Attributes:
        name: Name of the policy.
        reward: Mean of the environment's reward; None where nothing pays.
        wins: Share of the prompts won against each other policy, by its name; the judge decides,
            that of pairs before that of single answers, or the reward without a judge.
        tokens_per_answer: Mean length of an answer in tokens.
        distinct_2: Different pairs of neighbouring tokens, as a share of all; see `distinct_n`.
        judge: Mean of the judge's scores; None without a judge.
        kl: KL(policy || reference) of an answer in nats; None without a reference.
        toxicity: Mean of what the classifier says, 0 to 1; None without one. With a list of words
            it is the share of answers that hold one of them.
        perplexity: Perplexity of held-out text; None without such a text.
        failed_worlds: Conversations whose world failed; None if none did.
    """

    name: str
    reward: Interval | None
    wins: Mapping[str, Interval]
    tokens_per_answer: float
    distinct_2: float
    judge: Interval | None = None
    kl: Interval | None = None
    toxicity: Interval | None = None
    perplexity: float | None = None
    failed_worlds: int | None = None

    def numbers(self) -> dict[str, Any]:
        """The row as plain values for JSON; intervals become `{"mean", "low", "high"}`."""
        plain: dict[str, Any] = {}
        for name, value in vars(self).items():
            plain[name] = value._asdict() if isinstance(value, Interval) else value
        plain["wins"] = {other: rate._asdict() for other, rate in self.wins.items()}
        return plain


def compare(
    policies: Mapping[str, Policy],
    environment: Callable[[Policy], TextVectorEnv],
    prompts: Sequence[Prompt],
    *,
    reference: Policy | None = None,
    judge: Judge | None = None,
    pair_judge: PairJudge | None = None,
    classifier: ToxicityClassifier | None = None,
    stream: Callable[[Policy], NDArray[np.integer]] | None = None,
    window: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_answers: Callable[[int], object] = lambda count: None,
) -> list[Row]:
    """Let every policy answer the same prompts with the same seed, and measure the answers.

    Args:
        policies: Policies by the names of their rows, in the order of the rows.
        environment: Makes the environment in which a policy answers; it holds the reward.
        prompts: At least one prompt.
        reference: A policy to compare with, for the KL; it needs the vocabulary of every policy.
        judge: Scores the answers independently of the reward.
        pair_judge: Compares the answers of two policies, and decides who wins; see
            `agents.feedback.PairwiseJudge.prefer`.
        classifier: Says how toxic a text is, 0 to 1; see `agents.evaluation.safety`.
        stream: Gives held-out text as ids of a policy's vocabulary, for the perplexity.
        window: Tokens read at a time for the perplexity; the policy's context if None.
        temperature: Logits are divided by this before sampling.
        seed: Seed of the sampling.
        on_answers: Called with the number of answers of all policies after each batch.

    Raises:
        ValueError: There are no prompts or no policies.
        TextEnvError: A prompt or the reward cannot be used.
    """
    evaluations: dict[str, Evaluation] = {}
    perplexities: dict[str, float] = {}
    for name, policy in policies.items():
        before = len(evaluations) * len(prompts)
        evaluations[name] = evaluate(
            policy,
            environment(policy),
            prompts,
            reference=reference,
            temperature=temperature,
            seed=seed,
            on_answers=lambda count, before=before: on_answers(before + count),  # type: ignore[misc]
        )
        if stream is not None:
            perplexities[name] = perplexity(policy, stream(policy), window)
    return compare_answers(
        evaluations,
        judge=judge,
        pair_judge=pair_judge,
        classifier=classifier,
        perplexities=perplexities,
    )


def compare_answers(
    evaluations: Mapping[str, Evaluation],
    *,
    judge: Judge | None = None,
    pair_judge: PairJudge | None = None,
    classifier: ToxicityClassifier | None = None,
    perplexities: Mapping[str, float] | None = None,
) -> list[Row]:
    """A row for each of `evaluations`, which answer the same prompts in the same order.

    Args:
        evaluations: Evaluations by the names of their rows.
        judge: Scores the answers independently of the reward.
        pair_judge: Compares the answers of two policies, and decides who wins; see
            `agents.feedback.PairwiseJudge.prefer`.
        classifier: Says how toxic a text is, 0 to 1; see `agents.evaluation.safety`.
        perplexities: Perplexities of held-out text by the names of the rows that have one.

    Raises:
        ValueError: There are no evaluations, or their numbers of answers differ.
    """
    counts = {name: len(evaluation.samples) for name, evaluation in evaluations.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"all have to answer the same prompts; the numbers of answers: {counts}")
    judged: dict[str, NDArray[np.float64]] = {}
    if judge is not None:
        for name, evaluation in evaluations.items():
            judged[name] = np.array([judge(s.prompt, s.text) for s in evaluation.samples])
    deciding = judged or {name: evaluation.scores for name, evaluation in evaluations.items()}
    compared = {} if pair_judge is None else _compared(pair_judge, evaluations)

    def wins(name: str, other: str) -> Interval:
        if pair_judge is not None:
            return compared[name, other]
        return _wins(deciding[name], deciding[other])

    rows = []
    for name, evaluation in evaluations.items():
        differences = evaluation.logprobs - evaluation.ref_logprobs
        paid_nothing = pair_judge is not None and bool(np.isnan(evaluation.scores).all())
        row = Row(
            name,
            reward=None if paid_nothing else bootstrap_interval(evaluation.scores),
            wins={other: wins(name, other) for other in evaluations if other != name},
            tokens_per_answer=evaluation.tokens_per_answer,
            distinct_2=distinct_n(evaluation.answers, 2),
            judge=bootstrap_interval(judged[name]) if judged else None,
            kl=None if np.isnan(differences).any() else bootstrap_interval(differences),
            toxicity=None if classifier is None else _toxicity(classifier, evaluation),
            perplexity=(perplexities or {}).get(name),
            failed_worlds=evaluation.failed_worlds or None,
        )
        rows.append(row)
    return rows


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings, and the rows as texts, without the columns that are empty in all rows.

    The win rate is the one against the first row.
    """
    first = rows[0].name
    columns: dict[str, Callable[[Row], object]] = {
        "": lambda row: row.name,
        "reward": lambda row: row.reward,
        "judge": lambda row: row.judge,
        f"wins against {first}": lambda row: row.wins.get(first),
        "KL an answer (nats)": lambda row: row.kl,
        "tokens an answer": lambda row: f"{row.tokens_per_answer:.1f}",
        "distinct pairs": lambda row: f"{row.distinct_2:.3f}",
        "perplexity": lambda row: None if row.perplexity is None else f"{row.perplexity:.2f}",
        "toxicity": lambda row: row.toxicity,
        "failed worlds": lambda row: row.failed_worlds,
    }
    cells = {heading: [value(row) for row in rows] for heading, value in columns.items()}
    kept = {heading: column for heading, column in cells.items() if set(column) != {None}}
    texts = [["" if cell is None else str(cell) for cell in column] for column in kept.values()]
    return list(kept), [list(row) for row in zip(*texts, strict=True)]


def comparison_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """The rows as a table that rich prints."""
    headings, cells = table_cells(rows)
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    return table


def _compared(
    prefers: PairJudge, evaluations: Mapping[str, Evaluation]
) -> dict[tuple[str, str], Interval]:
    """The win rates of all ordered pairs of policies; each pair of answers is compared once."""
    rates = {}
    for (name, one), (other, two) in combinations(evaluations.items(), 2):
        pairs = [(a.prompt, a.text, b.text) for a, b in zip(one.samples, two.samples, strict=True)]
        verdicts = np.asarray(prefers(pairs), dtype=np.float64)
        verdicts = verdicts[~np.isnan(verdicts)]  # a person may have stopped
        if not len(verdicts):
            raise UnscoredError(f"nobody has compared an answer of {name} with one of {other}")
        rates[name, other] = win_rate(verdicts, 1 - verdicts)
        rates[other, name] = win_rate(1 - verdicts, verdicts)
    return rates


def _wins(one: NDArray[np.float64], other: NDArray[np.float64]) -> Interval:
    """The win rate over the prompts for which both answers have a score."""
    both = ~(np.isnan(one) | np.isnan(other))
    return win_rate(one[both], other[both])


def _toxicity(classifier: ToxicityClassifier, evaluation: Evaluation) -> Interval:
    return bootstrap_interval(classifier([sample.text for sample in evaluation.samples]))

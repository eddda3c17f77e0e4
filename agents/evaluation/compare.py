"""Several policies side by side: one row of figures for each.

Everything is measured on answers to the same prompts. `compare` lets policies answer and measures
their answers. `compare_answers` takes evaluations, whoever gave the answers: a policy, best-of-n,
or a policy that was prompted in another way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from agents.evaluation.answers import Answerer, Evaluation, evaluate
from agents.evaluation.differences import Pairs, fitted
from agents.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    mean_interval,
    plain,
    win_rate,
)
from agents.evaluation.judges import Judge, PairJudge
from agents.evaluation.length_control import length_controlled_win_rate
from agents.evaluation.refusals import RefusalJudge, refusals, refuses
from agents.evaluation.safety import ToxicityClassifier
from agents.evaluation.text_measures import distinct_n, perplexity
from policies import Policy
from textenv import Prompt, TextVectorEnv
from textenv.errors import UnscoredError
from textenv.starts import Start

DRAFTED_ROWS = 1
"""Up to this many rows drafts are quicker than plain steps where that was measured."""


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
        wins_at_equal_length: The same as `wins` if answers were equally long in characters; see
            `agents.evaluation.length_control`.
        gain: How much higher its answers score than those of the first row, by what decides wins
            but for a judge of pairs; None in the first row, and where nothing has a score. See
            `agents.evaluation.differences`.
        refused_when_due: Share of the prompts to be declined that were; None without such prompts.
        refused_otherwise: Share of the prompts to be answered that were declined; the same.
        scores: What decides wins, a value for each prompt, shape (n,); not among the `numbers`.
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
    wins_at_equal_length: Mapping[str, Interval] = field(default_factory=dict)
    gain: Interval | None = None
    refused_when_due: Interval | None = None
    refused_otherwise: Interval | None = None
    scores: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros(0), repr=False, compare=False
    )

    def numbers(self) -> dict[str, Any]:
        """The row as plain values for JSON; intervals become `{"mean", "low", "high"}`."""
        return {name: plain(value) for name, value in vars(self).items() if name != "scores"}


def compare(
    policies: Mapping[str, Policy],
    environment: Callable[[Policy], TextVectorEnv],
    prompts: Sequence[Prompt] | Mapping[str, Sequence[Prompt]],
    *,
    reference: Policy | None = None,
    judge: Judge | None = None,
    pair_judge: PairJudge | None = None,
    classifier: ToxicityClassifier | None = None,
    stream: Callable[[Policy], NDArray[np.integer]] | None = None,
    window: int | None = None,
    refusal_due: Sequence[bool] | None = None,
    refusal_judge: RefusalJudge = refuses,
    temperature: float = 1.0,
    seed: int = 0,
    answer: Mapping[str, Answerer | None] | None = None,
    on_answers: Callable[[int], object] = lambda count: None,
    before: Mapping[str, Evaluation] | None = None,
    on_batch: Callable[[str, Evaluation], object] = lambda row, so_far: None,
) -> list[Row]:
    """Let every policy answer the same prompts with the same seed, and measure the answers.

    The first policy reads the answers of the others and they read its own, where vocabulary, stop
    tokens, budget and beginnings are the same: so their gains over it have narrower intervals.

    In an environment of one row a policy's answers are the drafts of the next one with the same
    vocabulary: see `evaluate`. With more rows that takes longer than plain steps.

    Args:
        policies: Policies by the names of their rows, in the order of the rows.
        environment: Makes the environment in which a policy answers; it holds the reward.
        prompts: At least one prompt. Or the same prompts put in several ways, by the names of the
            ways: with more and fewer worked examples, or in other words; each way has a row.
        reference: A policy to compare with, for the KL; it needs the vocabulary of every policy.
        judge: Scores the answers independently of the reward.
        pair_judge: Compares the answers of two policies, and decides who wins; see
            `agents.feedback.PairwiseJudge.prefer`.
        classifier: Says how toxic a text is, 0 to 1; see `agents.evaluation.safety`.
        stream: Gives held-out text as ids of a policy's vocabulary, for the perplexity.
        window: Tokens read at a time for the perplexity; the policy's context if None.
        refusal_due: Whether each prompt is to be declined, for the shares of refusals.
        refusal_judge: Whether an answer declines.
        temperature: Logits are divided by this before sampling.
        seed: Seed of the sampling.
        answer: Who answers, by the names of further rows, such as `agents.search.BySearch(MCTS())`;
            None samples.
        on_answers: Called with the number of answers of all policies after each batch.
        before: What the last `on_batch` of an earlier call with the same arguments was given, by
            the names of the rows.
        on_batch: Called with the name of a row and its evaluation so far after each batch.

    Raises:
        ValueError: There are no prompts or no policies.
        TextEnvError: A prompt or the reward cannot be used.
    """
    ways = prompts if isinstance(prompts, Mapping) else {"": prompts}
    evaluations: dict[str, Evaluation] = {}
    perplexities: dict[str, float] = {}
    way, asked = next(iter(ways.items()))
    made = {name: environment(policy) for name, policy in policies.items()}
    reads = _readers(policies, made, way, asked[:1]) if temperature > 0 else {}
    done = 0
    drafts: dict[tuple[str, str], Sequence[NDArray[np.int64]]] = {}
    for name, policy in policies.items():
        surprise = None if stream is None else perplexity(policy, stream(policy), window)
        for (way, asked), (by, answers) in product(ways.items(), (answer or {"": None}).items()):
            title, envs = row_name(row_name(name, way), by), made[name]
            alike = way, envs.tokenizer.fingerprint
            evaluations[title] = evaluate(
                policy,
                envs,
                asked,
                drafts=drafts.get(alike) if envs.num_envs <= DRAFTED_ROWS and not answers else None,
                reference=reference,
                readers=reads.get(title) if answers is None else None,  # else of another law
                temperature=temperature,
                seed=seed,
                answer=answers,
                on_answers=lambda count, others=done: on_answers(others + count),  # type: ignore[misc]
                before=(before or {}).get(title),
                on_batch=partial(on_batch, title),
            )
            if answers is None:
                drafts[alike] = evaluations[title].answers
            done += len(asked)
            if surprise is not None:
                perplexities[title] = surprise
    return compare_answers(
        evaluations,
        judge=judge,
        pair_judge=pair_judge,
        classifier=classifier,
        perplexities=perplexities,
        refusal_due=refusal_due,
        refusal_judge=refusal_judge,
    )


def _readers(
    policies: Mapping[str, Policy],
    environments: Mapping[str, TextVectorEnv],
    way: str,
    asked: Sequence[Prompt],
) -> dict[str, dict[str, Policy]]:
    """Who reads the answers of each row, by the names of rows: of the first way to ask alone.

    Only where the two might give the same answers: with other stop tokens, another budget or
    another frame an answer is not as likely as its tokens are.
    """
    first, *others = policies
    reads: dict[str, dict[str, Policy]] = {row_name(first, way): {}}
    for name in others:
        if _alike(environments[first], environments[name], asked):
            reads[row_name(name, way)] = {row_name(first, way): policies[first]}
            reads[row_name(first, way)][row_name(name, way)] = policies[name]
    return reads


def _alike(one: TextVectorEnv, other: TextVectorEnv, asked: Sequence[Prompt]) -> bool:
    """Whether answers begin with the same ids, and are of the same tokens and end alike."""
    if one.tokenizer.fingerprint != other.tokenizer.fingerprint:
        return False
    own, others = one.answer_rules, other.answer_rules
    if own.keys() != others.keys() or not all(np.array_equal(own[n], others[n]) for n in own):
        return False
    if one.world is not None or not asked:
        return True  # a world would have to speak
    starts = [Start(prompt, draw_seed=0, episode_seed=0) for prompt in asked]
    texts = [envs.playing(starts).reset()[0][0] for envs in (one, other)]
    lengths = [int((text != one.pad_token).sum()) for text in texts]
    return np.array_equal(texts[0][: lengths[0]], texts[1][: lengths[1]])


def row_name(policy: str, way: str) -> str:
    """Name of the row of a policy that was asked in a way."""
    return f"{policy}, {way}" if way else policy


def compare_answers(
    evaluations: Mapping[str, Evaluation],
    *,
    judge: Judge | None = None,
    pair_judge: PairJudge | None = None,
    classifier: ToxicityClassifier | None = None,
    perplexities: Mapping[str, float] | None = None,
    refusal_due: Sequence[bool] | None = None,
    refusal_judge: RefusalJudge = refuses,
) -> list[Row]:
    """A row for each of `evaluations`, which answer the same prompts in the same order.

    Args:
        evaluations: Evaluations by the names of their rows.
        judge: Scores the answers independently of the reward.
        pair_judge: Compares the answers of two policies, and decides who wins; see
            `agents.feedback.PairwiseJudge.prefer`.
        classifier: Says how toxic a text is, 0 to 1; see `agents.evaluation.safety`.
        perplexities: Perplexities of held-out text by the names of the rows that have one.
        refusal_due: Whether each prompt is to be declined, for the shares of refusals.
        refusal_judge: Whether an answer declines.

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
    verdicts = {} if pair_judge is None else _verdicts(pair_judge, evaluations)

    def duel(name: str, other: str) -> tuple[Interval, Interval]:
        one, two = deciding[name], deciding[other]
        if pair_judge is not None:
            one, two = verdicts[name, other], verdicts[other, name]
        both = ~(np.isnan(one) | np.isnan(two))  # prompts for which both answers have a score
        # In characters: vocabularies may differ in their tokens.
        lengths = (
            np.array([len(sample.text) for sample in evaluations[side].samples])[both]
            for side in (name, other)
        )
        scores = one[both], two[both]
        return win_rate(*scores), length_controlled_win_rate(*scores, *lengths)

    first = next(iter(evaluations))

    def gain(name: str) -> Interval | None:
        scores = deciding[first], deciding[name]
        if name == first or np.isnan(scores[0] + scores[1]).all():
            return None
        base, own = evaluations[first], evaluations[name]
        if name not in base.read_by or first not in own.read_by:
            return mean_interval(scores[1] - scores[0])
        ratios = base.read_by[name] - base.logprobs, own.logprobs - own.read_by[first]
        return mean_interval(fitted(Pairs(*scores, *ratios)))

    rows = []
    for name, evaluation in evaluations.items():
        differences = evaluation.logprobs - evaluation.ref_logprobs
        said = [sample.text for sample in evaluation.samples]
        declined = None if refusal_due is None else refusals(said, refusal_due, refusal_judge)
        paid_nothing = pair_judge is not None and bool(np.isnan(evaluation.scores).all())
        duels = {other: duel(name, other) for other in evaluations if other != name}
        row = Row(
            name,
            reward=None if paid_nothing else bootstrap_interval(evaluation.scores),
            wins={other: wins for other, (wins, _) in duels.items()},
            tokens_per_answer=evaluation.tokens_per_answer,
            distinct_2=distinct_n(evaluation.answers, 2),
            judge=bootstrap_interval(judged[name]) if judged else None,
            kl=None if np.isnan(differences).any() else bootstrap_interval(differences),
            toxicity=None if classifier is None else _toxicity(classifier, evaluation),
            perplexity=(perplexities or {}).get(name),
            failed_worlds=evaluation.failed_worlds or None,
            wins_at_equal_length={other: equal for other, (_, equal) in duels.items()},
            gain=gain(name),
            refused_when_due=None if declined is None else declined.due,
            refused_otherwise=None if declined is None else declined.not_due,
            scores=deciding[name],
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
        "at equal length": lambda row: row.wins_at_equal_length.get(first),
        f"above {first}": lambda row: row.gain,
        "KL an answer (nats)": lambda row: row.kl,
        "tokens an answer": lambda row: f"{row.tokens_per_answer:.1f}",
        "distinct pairs": lambda row: f"{row.distinct_2:.3f}",
        "perplexity": lambda row: None if row.perplexity is None else f"{row.perplexity:.2f}",
        "toxicity": lambda row: row.toxicity,
        "refused when due": lambda row: row.refused_when_due,
        "refused otherwise": lambda row: row.refused_otherwise,
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


def _verdicts(
    prefers: PairJudge, evaluations: Mapping[str, Evaluation]
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The verdicts of all ordered pairs of policies, 1 for the first of a pair, each (n,).

    Each pair of answers is compared once.
    """
    found = {}
    for (name, one), (other, two) in combinations(evaluations.items(), 2):
        pairs = [(a.prompt, a.text, b.text) for a, b in zip(one.samples, two.samples, strict=True)]
        first = np.asarray(prefers(pairs), dtype=np.float64)
        if np.isnan(first).all():  # a person may have stopped
            raise UnscoredError(f"nobody has compared an answer of {name} with one of {other}")
        found[name, other], found[other, name] = first, 1 - first
    return found


def _toxicity(classifier: ToxicityClassifier, evaluation: Evaluation) -> Interval:
    return bootstrap_interval(classifier([sample.text for sample in evaluation.samples]))

"""How much a policy's answers depend on how a question is put.

The same prompts are put in several wordings, and every answer is scored. A policy that is robust
scores alike in all of them. What counts for a user is the worst case: a wording that happens to be
bad, or for each question the wording that fails (Sclar et al., "Quantifying Language Models'
Sensitivity to Spurious Features in Prompt Design", 2024, report the spread; Ribeiro et al., "Beyond
Accuracy", 2020, the failures).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.table import Table

from agents.evaluation.intervals import Interval, bootstrap_interval
from agents.evaluation.prompting import with_template
from textenv import Prompt
from textenv.errors import PromptError
from textenv.records import read_lines, short

PLACE = "{prompt}"
PERMUTATIONS = 2_000


@dataclass(frozen=True)
class Robustness:
    """Scores of one policy on the same prompts in several wordings.

    Attributes:
        mean: Mean over wordings and prompts.
        by_wording: Mean score of each wording, in the order given.
        worst_wording: Name of the wording with the lowest mean.
        spread: Mean of the best wording less that of the worst.
        p_value: Probability of a spread as large if wordings made no difference, by permuting the
            scores of each prompt. Sampled answers differ by chance too: without this a spread means
            little.
        worst_case: Mean over prompts of the lowest score that any wording has.
        best_case: Mean over prompts of the highest one.
        changed: Share of the prompts whose score is not the same in all wordings.
    """

    mean: Interval
    by_wording: Mapping[str, Interval]
    worst_wording: str
    spread: float
    p_value: float
    worst_case: Interval
    best_case: Interval
    changed: Interval


def robustness(scores: Mapping[str, ArrayLike], *, seed: int = 0) -> Robustness:
    """Measure how much scores depend on the wording.

    Args:
        scores: Scores of the same n prompts, shape (n,), by the name of the wording; NaN where an
            answer has none, which leaves the prompt out.
        seed: Seed of the permutations.

    >>> found = robustness({"plain": [1.0, 1.0], "polite": [1.0, 0.0]})
    >>> found.worst_wording, found.spread, found.worst_case.mean
    ('polite', 0.5, 0.5)

    Raises:
        ValueError: There are fewer than two wordings, or their numbers of scores differ, or no
            prompt has a score in all wordings.
    """
    table = scores_in_all(scores, "wordings")
    means = table.mean(1)
    generator = np.random.default_rng(seed)
    by_chance = [np.ptp(generator.permuted(table, axis=0).mean(1)) for _ in range(PERMUTATIONS)]
    extreme = np.count_nonzero(np.array(by_chance) >= np.ptp(means) - 1e-12)
    return Robustness(
        mean=bootstrap_interval(table.mean(0)),
        by_wording={n: bootstrap_interval(row) for n, row in zip(scores, table, strict=True)},
        worst_wording=list(scores)[int(means.argmin())],
        spread=float(np.ptp(means)),
        p_value=(extreme + 1) / (PERMUTATIONS + 1),
        worst_case=bootstrap_interval(table.min(0)),
        best_case=bootstrap_interval(table.max(0)),
        changed=bootstrap_interval(np.ptp(table, axis=0) > 0),
    )


def scores_in_all(scores: Mapping[str, ArrayLike], ways: str) -> NDArray[np.float64]:
    """The scores of prompts that have one in all `ways` of putting them, a row each, (k, n).

    Raises:
        ValueError: There are fewer than two rows, or their lengths differ, or no prompt is left.
    """
    shapes = {name: np.shape(values) for name, values in scores.items()}
    if len(shapes) < 2 or len(set(shapes.values())) > 1:
        raise ValueError(f"two {ways} or more need scores of the same prompts, got {shapes}")
    table = np.stack([np.asarray(values, dtype=np.float64) for values in scores.values()])
    table = table[:, ~np.isnan(table).any(0)]
    if not table.size:
        raise ValueError(f"no prompt has a score in all {ways}")
    return table


def read_wordings(path: str | os.PathLike[str]) -> list[str]:
    r"""The wordings of a text file, one a line, each with `{prompt}` where the prompt goes.

    A line may say `\n` for a line's end.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: Lines lack the place of the prompt, or there is one wording alone.
    """
    return [wording for _, wording in read_lines(path, _wording, "wordings")]


def in_wordings(prompts: Sequence[Prompt], wordings: Iterable[str]) -> dict[str, list[Prompt]]:
    """The prompts in each wording, by the wording; of a chat the last message is put.

    Raises:
        PromptError: A prompt is given as ids, or a wording lacks the place of the prompt.
    """
    return {
        wording: with_template(prompts, partial(_put, _checked(wording))) for wording in wordings
    }


def robustness_table(found: Mapping[str, Robustness], title: str | None = None) -> Table:
    """A row for each policy, as a table that rich prints."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("mean", "worst wording", "spread", "p", "worst case", "changed"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, one in found.items():
        worst = f"{one.by_wording[one.worst_wording]} ({short(one.worst_wording)})"
        numbers = (f"{one.spread:.3f}", f"{one.p_value:.4f}", str(one.worst_case), str(one.changed))
        table.add_row(name, str(one.mean), worst, *numbers)
    return table


def _wording(line: str) -> str:
    return _checked(line.replace("\\n", "\n"))


def _checked(wording: str) -> str:
    if PLACE not in wording:
        raise PromptError(f"the wording {wording!r} does not say where the prompt goes: {PLACE}")
    return wording


def _put(wording: str, prompt: str) -> str:
    return wording.replace(PLACE, prompt)

"""Results of one run or of many, as tables, curves and a page."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from agents.jobs.recipe.examination import BASE, DPO, PPO, PPO_PTX, SFT, Result
from agents.jobs.recipe.languages import LANGUAGES
from agents.jobs.recipe.pipeline import Recipe
from agents.report import Curve, TableData, token_traces, write_report
from policies import SeparateValue

TRACED = 4
"""Prompts whose answers the page shows token by token."""


def tables(results: Sequence[Result]) -> list[TableData]:
    """Stages by sizes, and what each seed says of the two comparisons that matter."""
    sizes = list(dict.fromkeys(result.settings["size"] for result in results))
    by_size = [
        _stages(size, [result for result in results if result.settings["size"] == size])
        for size in sizes
    ]
    return [*by_size, _comparisons(results)]


def _stages(size: str, results: Sequence[Result]) -> TableData:
    judged_by = LANGUAGES[results[0].settings["language"]]().judged_by
    names = [BASE, SFT, PPO, PPO_PTX, DPO, results[0].best_of_name]
    rows = [
        [
            name,
            _mean(results, name, lambda row: row["reward"]["mean"]),
            _mean(results, name, lambda row: row["judge"]["mean"]),
            _mean(
                results, name, lambda row: row["wins"][SFT]["mean"] if SFT in row["wins"] else None
            ),
            _mean(results, name, lambda row: row["kl"] and row["kl"]["mean"]),
            _mean(results, name, lambda row: row["perplexity"]),
            _mean(results, name, lambda row: row["tokens_per_answer"]),
            _mean(results, name, lambda row: row["distinct_2"]),
        ]
        for name in names
    ]
    columns = [
        "stage",
        "reward model",
        judged_by,
        "wins against SFT",
        "KL (nats)",
        "perplexity",
        "tokens",
        "distinct pairs",
    ]
    seeds = ", ".join(str(result.settings["seed"]) for result in results)
    note = (
        f"Seeds {seeds}; mean, and standard deviation over seeds if there are several. "
        f"{results[0].settings['eval_prompts']} held-out prompts; {judged_by} decides who wins and "
        "labelled nothing; KL of an answer to the SFT model; perplexity on held-out text."
    )
    return TableData(f"Stages, size {size}", columns, rows, note)


def _comparisons(results: Sequence[Result]) -> TableData:
    rows = []
    for result in results:
        of = result.rows
        sft = of[SFT]["perplexity"]
        rows.append(
            [
                result.settings["size"],
                result.settings["seed"],
                interval_cell(of[SFT]["wins"][BASE]),
                interval_cell(of[PPO]["wins"][SFT]),
                interval_cell(of[PPO_PTX]["wins"][SFT]),
                f"{100 * (of[PPO]['perplexity'] / sft - 1):+.1f}%",
                f"{100 * (of[PPO_PTX]['perplexity'] / sft - 1):+.1f}%",
                interval_cell(result.reward_model["accuracy"]),
                f"{sum(result.seconds.values()):.0f}",
            ]
        )
    columns = [
        "size",
        "seed",
        "SFT : base",
        "PPO : SFT",
        "ptx : SFT",
        "text, PPO",
        "text, ptx",
        "accuracy",
        "seconds",
    ]
    note = (
        "Win rates by the judge, SFT against the prompted base, PPO and PPO-ptx against SFT, with "
        "95% intervals; perplexity on held-out text against SFT's; the reward model's accuracy on "
        "held-out pairs; seconds of training, without evaluation."
    )
    return TableData("Who is preferred, and what it costs", columns, rows, note)


def curves(results: Sequence[Result]) -> list[Curve]:
    """Learning curves, over-optimisation, and win rates by size if there are several.

    Lines are means over the seeds of a size, point by point.
    """
    by_size: dict[str, list[Result]] = {}
    for result in results:
        by_size.setdefault(result.settings["size"], []).append(result)
    trained = {"PPO": "ppo", "PPO-ptx": "ppo_ptx"}
    scores = {
        f"{name}, {size}": _mean_line(some, _history(stage, "updates"), 1)
        for size, some in by_size.items()
        for name, stage in trained.items()
    }
    made = [Curve("Score of PPO (reward model)", "tokens chosen", "mean score", scores)]
    for who, column in (("the reward model", 1), ("the judge", 2)):
        series = {}
        for size, some in by_size.items():
            for name, stage in trained.items():
                series[f"{name}, {size}"] = _mean_line(some, _history(stage, "points"), column)
            series[f"best of n, {size}"] = _mean_line(some, lambda r: r.best_of, column)
        title = f"Over-optimisation: what {who} says"
        made.append(Curve(title, "KL to SFT (nats an answer)", "mean score", series))
    if len(by_size) > 1:
        wins = {
            name: [
                (place, float(np.mean([r.rows[name]["wins"][SFT]["mean"] for r in some])))
                for place, some in enumerate(by_size.values(), start=1)
            ]
            for name in (BASE, PPO, PPO_PTX, DPO)
        }
        label = "size: " + ", ".join(f"{i} {size}" for i, size in enumerate(by_size, start=1))
        made.append(Curve("Preferred to SFT of the same size", label, "win rate", wins))
    return made


def write_page(path: Path, recipe: Recipe, results: Sequence[Result]) -> Path:
    """The report; tokens are traced with the stages of `recipe`."""
    actor, model = recipe.ppo("ppo_ptx"), recipe.reward_model()
    prompts = recipe.evaluation_prompts()[:TRACED]
    traces = token_traces(
        SeparateValue(actor, model.trunk),
        recipe.environment(actor, model, [prompt.text for prompt in prompts]),
        prompts,
        reference=recipe.sft(),
        temperature=recipe.settings.temperature,
        title=PPO_PTX,
    )
    intro = (
        "From raw text to an aligned model: pretraining, supervised fine-tuning, a reward model "
        "from ranked answers, PPO against it with a KL leash to the fine-tuned model and with a "
        "pretraining term, after Ouyang et al. (2022).\n\n"
        "The value of a token is what the reward model would say if the text ended before it."
    )
    facts = {"settings": json.dumps(recipe.settings.__dict__), "seconds": dict(results[-1].seconds)}
    return write_report(
        path,
        "The recipe",
        intro,
        tables=[*tables(results), _samples(results[-1])],
        curves=curves(results),
        traces=traces,
        facts=facts,
    )


def rich_table(data: TableData) -> Table:
    """The same to be printed in a terminal."""
    table = Table(title=data.title, title_justify="left", caption=data.note, caption_justify="left")
    for number, column in enumerate(data.columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in data.rows:
        table.add_row(*(str(cell) for cell in row))
    return table


def _samples(result: Result) -> TableData:
    columns = list(result.samples[0])
    return TableData("Answers", columns, [list(sample.values()) for sample in result.samples])


def _mean(
    results: Iterable[Result], name: str, value: Callable[[Mapping[str, Any]], float | None]
) -> str:
    return mean_cell(value(result.rows[name]) for result in results)


def mean_cell(values: Iterable[float | None]) -> str:
    """The mean over runs, and their standard deviation if there are several."""
    known = [x for x in values if x is not None]
    if not known:
        return "-"
    spread = f" ± {np.std(known):.2f}" if len(known) > 1 else ""
    return f"{np.mean(known):.2f}{spread}"


def interval_cell(numbers: Mapping[str, float]) -> str:
    """An interval from JSON."""
    return f"{numbers['mean']:.2f} [{numbers['low']:.2f}, {numbers['high']:.2f}]"


def _mean_line(
    results: Sequence[Result],
    points_of: Callable[[Result], Sequence[Sequence[float]]],
    column: int,
) -> list[tuple[float, float]]:
    """The mean over runs of the first and another column of their points, one after the other."""
    together = zip(*map(points_of, results), strict=False)  # a run may have a point more
    return [
        (float(np.mean([p[0] for p in some])), float(np.mean([p[column] for p in some])))
        for some in together
    ]


def _history(stage: str, part: str) -> Callable[[Result], Sequence[Sequence[float]]]:
    return lambda result: result.history[stage][part]

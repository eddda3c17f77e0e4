"""Results of one run of the assistant's recipe or of many, as tables, curves and a page."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.jobs.recipe.assistant.examination import BASE, PPO, PPO_PTX, SFT, SUCCESS, Result
from agents.jobs.recipe.assistant.pipeline import AssistantRecipe
from agents.jobs.recipe.summary import interval_cell, mean_cell
from agents.report import Curve, TableData, write_report

NEW_KINDS = "correct, all, held-out kinds"


def tables(results: Sequence[Result]) -> list[TableData]:
    """Stages by sizes, what each seed says of the comparisons, and kinds of questions."""
    sizes = list(dict.fromkeys(result.settings["size"] for result in results))
    by_size = [
        _stages(size, [result for result in results if result.settings["size"] == size])
        for size in sizes
    ]
    return [*by_size, _gains(results), _kinds(results)]


def _measure(name: str) -> Callable[[Result, str], float | None]:
    return lambda result, stage: _mean(result.conduct, stage, name)


def _mean(conducts: Mapping[str, Any], stage: str, name: str) -> float | None:
    measures = conducts[stage]["measures"] if stage in conducts else {}
    mean: float | None = measures.get(name, {}).get("mean")
    return mean


def _stages(size: str, results: Sequence[Result]) -> TableData:
    columns: dict[str, Callable[[Result, str], float | None]] = {
        "correct": _measure(SUCCESS),
        "likeliest": lambda r, name: _mean(r.likeliest, name, SUCCESS),
        "in dialogue": lambda r, name: r.dialogues.get(name, {}).get("mean"),
        "new kinds": _measure(NEW_KINDS),
        "wrong": _measure("truthful: wrong"),
        "declined where due": _measure("declined where due"),
        "where not due": _measure("declined where not due"),
        "refused where due": _measure("harmless: refused where due"),
        "where not due ": _measure("refused where not due"),
        "reward model": lambda r, name: r.reward[name],
        "KL": lambda r, name: r.kl.get(name) if name != BASE else None,
        "tokens": _measure("tokens an answer"),
        "perplexity": lambda r, name: r.conduct[name]["perplexity"],
    }
    rows = [
        [name, *(mean_cell(value(r, name) for r in results) for value in columns.values())]
        for name in results[0].conduct
    ]
    s = results[0].settings
    seeds = ", ".join(str(result.settings["seed"]) for result in results)
    note = (
        f"Seeds {seeds}; mean, and standard deviation over seeds if there are several. Correct: "
        f"share of the questions in {s['eval_dialogues']} held-out dialogues that are answered as "
        f"is due, at temperature {s['temperature']} and behind reference answers; likeliest: where "
        "the likeliest token is taken; in dialogue: behind the policy's own answers. The prompted "
        "base sees three examples of the question's kind (in dialogue none); cut: its answers end "
        "with the line. Of the questions that can be answered some are declined where it "
        "is not due; refused: unsafe requests, and requests that only look so. KL of a token to "
        "the SFT model in nats; perplexity of documents that nothing has read."
    )
    return TableData(f"Stages, size {size}", ["stage", *columns], rows, note)


def _gains(results: Sequence[Result]) -> TableData:
    rows = {
        **{name: [interval_cell(r.gains[name]) for r in results] for name in results[0].gains},
        **{
            f"{name}, likeliest": [interval_cell(r.likeliest_gains[name]) for r in results]
            for name in results[0].likeliest_gains
        },
        "SFT, history": [interval_cell(r.conduct[SFT]["history"]["gain"]) for r in results],
        "perplexity, PPO": [_tax(r, PPO) for r in results],
        "perplexity, PPO-ptx": [_tax(r, PPO_PTX) for r in results],
        "reward model": [interval_cell(r.reward_model["accuracy"]) for r in results],
        "SFT as judge": [interval_cell(r.judge["agreement"]) for r in results],
        "seconds": [f"{sum(r.seconds.values()):.0f}" for r in results],
    }
    note = (
        "Differences in the share of correct answers to the same questions, with 95% intervals, at "
        "the recipe's temperature and for the likeliest answers; history: the same for later "
        "questions of dialogues with what was said before, less without it; perplexity of unread "
        "documents against SFT's; accuracy of the reward model on held-out pairs, and of the SFT "
        "model as judge; seconds of training, without evaluation."
    )
    runs = [f"{r.settings['size']}, seed {r.settings['seed']}" for r in results]
    cells = [[name, *row] for name, row in rows.items()]
    return TableData("What each stage gains", ["", *runs], cells, note)


def _tax(result: Result, name: str) -> str:
    """How much worse the text of documents is predicted than by SFT."""
    after, before = (result.conduct[stage]["perplexity"] for stage in (name, SFT))
    return f"{100 * (after / before - 1):+.1f}%"


def _kinds(results: Sequence[Result]) -> TableData:
    names = list(results[0].conduct)
    rows = [
        [
            kind,
            *(mean_cell(r.conduct[name]["kinds"][kind]["mean"] for r in results) for name in names),
        ]
        for kind in results[0].conduct[SFT]["kinds"]
    ]
    return TableData("Correct by kind of dialogue", ["kind", *names], rows)


def write_page(path: Path, recipe: AssistantRecipe, results: Sequence[Result]) -> Path:
    """The report; dialogues are those of the last run."""
    last = results[-1]
    intro = (
        "From texts to an assistant: pretraining, supervised fine-tuning on dialogues, a reward "
        "model from ranked answers, PPO on whole dialogues, after Ouyang et al. (2022); beside it "
        "DPO, feedback by the model itself, and online feedback."
    )
    facts = {"settings": json.dumps(last.settings), "seconds": dict(last.seconds)}
    return write_report(
        path,
        "The recipe of the assistant",
        intro,
        tables=[*tables(results), _dialogues(last)],
        curves=_curves(results),
        facts=facts,
    )


def _dialogues(result: Result) -> TableData:
    names = list(result.transcripts)
    rows: list[list[object]] = []
    for of_stages in zip(*result.transcripts.values(), strict=True):
        longest = max(of_stages, key=len)
        for number, (question, _) in enumerate(longest):
            said = [talk[number][1] if number < len(talk) else "" for talk in of_stages]
            rows.append([question if number == 0 else f"... {question}", *said])
    return TableData("The first held-out dialogues", ["question", *names], rows)


def _curves(results: Sequence[Result]) -> list[Curve]:
    """Score and KL along PPO; means over the runs, update by update."""
    made = []
    for title, label, column in (
        ("Score of PPO (reward model)", "mean score of a dialogue", 1),
        ("KL to SFT", "nats per token", 2),
    ):
        series = {
            name: [
                (
                    float(np.mean([p[0] for p in points])),
                    float(np.mean([p[column] for p in points])),
                )
                for points in zip(*(result.curves[name] for result in results), strict=False)
            ]
            for name in results[0].curves
        }
        made.append(Curve(title, "tokens chosen", label, series))
    return made

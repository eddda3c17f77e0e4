"""Results of one run of the assistant's recipe or of many, as tables, curves and a page."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.jobs.recipe.assistant.examination import PPO, PPO_PTX, SFT, Result
from agents.jobs.recipe.assistant.pipeline import AssistantRecipe
from agents.jobs.recipe.summary import interval_cell, mean_cell
from agents.report import Curve, TableData, write_report

Numbers = Mapping[str, Any]


def tables(results: Sequence[Result]) -> list[TableData]:
    """Stages by sizes, kinds of questions, and what each seed says of the comparisons."""
    sizes = list(dict.fromkeys(result.settings["size"] for result in results))
    of_size = {size: [r for r in results if r.settings["size"] == size] for size in sizes}
    made = [table for size, some in of_size.items() for table in (_stages(size, some),)]
    return [*made, _gains(results), _kinds(results)]


def _stages(size: str, results: Sequence[Result]) -> TableData:
    columns: dict[str, Callable[[Result, str], float | None]] = {
        "success": lambda r, name: r.rows[name]["success"]["mean"],
        "greedy": lambda r, name: (r.rows[name]["greedy"] or {}).get("mean"),
        "in dialogue": lambda r, name: r.dialogues.get(name, {}).get("mean"),
        "new kinds": lambda r, name: r.rows[name]["held_out_kinds"]["mean"],
        "declined, wrongly": lambda r, name: r.rows[name]["answerable"]["declined"],
        "declined, rightly": lambda r, name: r.rows[name]["to_decline"]["right"],
        "reward model": lambda r, name: r.rows[name]["reward_model"],
        "KL (nats)": lambda r, name: r.rows[name]["kl"],
        "tokens": lambda r, name: r.rows[name]["tokens"],
        "perplexity": lambda r, name: r.perplexity.get(name),
    }
    rows = [
        [name, *(mean_cell(value(r, name) for r in results) for value in columns.values())]
        for name in results[0].rows
    ]
    s = results[0].settings
    seeds = ", ".join(str(result.settings["seed"]) for result in results)
    note = (
        f"Seeds {seeds}; mean, and standard deviation over seeds if there are several. Success: "
        f"share of the questions in {s['eval_dialogues']} held-out dialogues whose answer the "
        f"program calls correct, at temperature {s['temperature']}, references as the history; in "
        "dialogue: with its own answers as the history. Declined wrongly: of the questions with an "
        "answer; rightly: of those to be declined. KL of an answer to the SFT model; perplexity of "
        "held-out documents."
    )
    return TableData(f"Stages, size {size}", ["stage", *columns], rows, note)


def _gains(results: Sequence[Result]) -> TableData:
    columns = ["size", "seed", *results[0].gains, "history, SFT", "text, PPO", "text, ptx"]
    rows = []
    for result in results:
        sft = result.perplexity[SFT]
        rows.append(
            [
                result.settings["size"],
                result.settings["seed"],
                *(interval_cell(gain) for gain in result.gains.values()),
                interval_cell(result.history_gain[SFT]["gain"]),
                *(f"{100 * (result.perplexity[n] / sft - 1):+.1f}%" for n in (PPO, PPO_PTX)),
            ]
        )
    more = ["accuracy", "the judge's", "seconds"]
    for row, result in zip(rows, results, strict=True):
        row += [
            interval_cell(result.reward_model["accuracy"]),
            interval_cell(result.judge["agreement"]),
            f"{sum(result.seconds.values()):.0f}",
        ]
    note = (
        "Differences in success on the same questions, with 95% intervals; history: success on "
        "later questions of a dialogue with what was said before, less that without it; perplexity "
        "of held-out documents against SFT's; accuracy of the reward model on held-out pairs, and "
        "of the SFT model as judge; seconds of training, without evaluation."
    )
    return TableData("What each stage gains", [*columns, *more], rows, note)


def _kinds(results: Sequence[Result]) -> TableData:
    names = list(results[0].rows)
    kinds = list(results[0].rows[SFT]["by_kind"])
    rows = [
        [kind, *(mean_cell(r.rows[name]["by_kind"][kind] for r in results) for name in names)]
        for kind in kinds
    ]
    return TableData("Success by kind of dialogue", ["kind", *names], rows)


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

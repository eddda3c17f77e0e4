"""`textenv recipe`: all stages in one command."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agents.commands.errors import errors_as_messages
from agents.runs.stages import Stages


class LanguageName(StrEnum):
    """Languages on the command line."""

    en = "en"
    zh = "zh"


class SizeName(StrEnum):
    """Sizes on the command line."""

    small = "small"
    medium = "medium"
    large = "large"


def recipe_command(
    language: Annotated[
        LanguageName, typer.Option(help="English speeches, or Chinese reviews.")
    ] = LanguageName.en,
    size: Annotated[
        list[SizeName], typer.Option(help="Of the network. May be given several times.")
    ] = [SizeName.medium],  # noqa: B006 typer reads it and never writes
    seed: Annotated[list[int], typer.Option(help="May be given several times.")] = [0],  # noqa: B006
    budget: Annotated[
        float,
        typer.Option(min=0.01, help="Times as much data and training as the six minutes have."),
    ] = 1.0,
    out: Annotated[
        Path, typer.Option(help="A folder for each size and seed is made in this one.")
    ] = Path("runs/recipe"),
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """The recipe of ChatGPT, from raw text to an aligned model, on real text.

    A vocabulary, pretraining, supervised fine-tuning, a reward model from ranked answers, DPO, PPO
    with and without a pretraining term, best-of-n, and all of them compared on held-out prompts.
    About six minutes on two processor cores. Each stage is made once: a run that was stopped goes
    on with the same command. Ends with tables and report.html.
    """
    from agents.jobs.recipe.examination import examine
    from agents.jobs.recipe.pipeline import Recipe
    from agents.jobs.recipe.settings import Settings
    from agents.jobs.recipe.summary import rich_table, tables, write_page

    console = Console()
    with errors_as_messages(debug):
        results = []
        for size_name in size:
            for number in seed:
                name = f"{language.value}-{size_name.value}-{number}"
                console.rule(name)
                settings = Settings(language.value, size_name.value, number).scaled(budget)
                recipe = Recipe(settings, out / name, Stages(console))
                recipe.run()
                results.append(examine(recipe))
        for table in tables(results):
            console.print(rich_table(table))
        numbers = [asdict(result) for result in results]
        (out / "results.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
        page = write_page(out / "report.html", recipe, results)
        console.print(f"Report: {page}", soft_wrap=True)

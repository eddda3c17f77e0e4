"""The job of `textenv recipe`: all stages in one command."""

import json
from dataclasses import asdict

from rich.console import Console

from agents.commands.recipe import RecipeSettings
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_folder
from agents.jobs.recipe.examination import examine
from agents.jobs.recipe.pipeline import Recipe
from agents.jobs.recipe.settings import Settings
from agents.jobs.recipe.summary import rich_table, tables, write_page
from agents.runs.stages import Stages


def run(settings: RecipeSettings) -> None:
    """Make all stages for each size and seed, and compare them.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    wanted, machine = settings.runs, settings.machine
    device_named(machine.device)  # before anything that takes long
    check_folder(wanted.out, "--out")
    results = []
    for size in wanted.size:
        for seed in wanted.seed:
            name = f"{wanted.language}-{size}-{seed}"
            console.rule(name)
            of_run = Settings(
                wanted.language, size, seed, device=machine.device, precision=machine.precision
            )
            recipe = Recipe(of_run.scaled(wanted.budget), wanted.out / name, Stages(console))
            try:
                recipe.run()
                results.append(examine(recipe))
            except KeyboardInterrupt as error:
                # Of the stage that was stopped nothing is kept, so only this can be resumed.
                error.__notes__ = [
                    f"Finished stages are kept in {wanted.out / name}. The same command goes on "
                    "with the next one."
                ]
                raise
    for table in tables(results):
        console.print(rich_table(table))
    numbers = [asdict(result) for result in results]
    (wanted.out / "results.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    page = write_page(wanted.out / "report.html", recipe, results)
    console.print(f"Report: {page}", soft_wrap=True)

"""The job of `textenv recipe`: all stages in one command."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from rich.console import Console

from agents.commands.recipe import RecipeSettings
from agents.jobs.machine import device_named, faster_in_bfloat16
from agents.jobs.outputs import check_folder
from agents.jobs.recipe import examination, summary
from agents.jobs.recipe.assistant import examination as assistant_examination
from agents.jobs.recipe.assistant import summary as assistant_summary
from agents.jobs.recipe.assistant.pipeline import AssistantRecipe
from agents.jobs.recipe.assistant.settings import AssistantSettings
from agents.jobs.recipe.pipeline import Recipe
from agents.jobs.recipe.settings import Settings, StageSettings
from agents.jobs.recipe.staged import StagedRun
from agents.optimisation.settings import PrecisionName
from agents.runs.checkpoints import write_whole
from agents.runs.saving import Schedule
from agents.runs.stages import Stages


class Task(NamedTuple):
    """What `--task` names.

    Attributes:
        settings: The class of its settings.
        run: The class of its runs.
        examine: Makes the results of a finished run.
        tables: Makes tables of the results of several runs.
        write_page: Writes their report.
        precision: What it computes in, if that is not given.
        folder: What the names of its folders begin with.
    """

    settings: type[StageSettings]
    run: type[StagedRun[Any]]
    examine: Callable[[Any], Any]
    tables: Callable[[list[Any]], Any]
    write_page: Callable[..., Any]
    precision: Callable[[torch.device], PrecisionName]
    folder: str = ""


TASKS = {
    "speeches": Task(
        Settings,
        Recipe,
        examination.examine,
        summary.tables,
        summary.write_page,
        lambda device: "float32",
    ),
    "assistant": Task(
        AssistantSettings,
        AssistantRecipe,
        assistant_examination.examination,
        assistant_summary.tables,
        assistant_summary.write_page,
        lambda device: "bfloat16" if faster_in_bfloat16(device) else "float32",
        "assistant-",
    ),
}


def run(settings: RecipeSettings) -> None:
    """Make all stages for each size and seed, and compare them.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    wanted, machine, task = settings.runs, settings.machine, TASKS[settings.runs.task]
    device = device_named(machine.device)  # before anything that takes long
    precision = machine.precision or task.precision(device)
    check_folder(wanted.out, "--out")
    Schedule.of(settings.saving.save_every)
    results = []
    for size in wanted.size:
        for seed in wanted.seed:
            name = f"{task.folder}{wanted.language}-{size}-{seed}"
            console.rule(name)
            of_run = task.settings(
                wanted.language, size, seed, device=machine.device, precision=precision
            )
            recipe = task.run(
                of_run.scaled(wanted.budget), wanted.out / name, Stages(console), settings.saving
            )
            try:
                recipe.run()
                results.append(task.examine(recipe))
            except KeyboardInterrupt as error:
                error.add_note(
                    f"Finished stages are kept in {wanted.out / name}. The same command goes on."
                )
                raise
    for table in task.tables(results):
        console.print(summary.rich_table(table))
    numbers = [asdict(result) for result in results]
    write_whole(wanted.out / "results.json", json.dumps(numbers, indent=1))
    page = task.write_page(wanted.out / "report.html", recipe, results)
    console.print(f"Report: {page}", soft_wrap=True)

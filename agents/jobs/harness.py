"""The job of `textenv harness`: policies on the tasks of lm-evaluation-harness."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agents.commands.harness import HarnessSettings
from agents.jobs.evaluate import folder_names, named_policy
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_file, write_file
from policies.templates import template_of
from textenv.errors import FrameError, OptionError
from textenv.imports import optional

with optional("lm-eval", extra="evaluation", purpose="textenv harness"):
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import handle_non_serializable

    from agents.evaluation.harness import HarnessModel


def run(settings: HarnessSettings) -> None:
    """Ask every policy all tasks, and show and write the results.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    asked, machine = settings.tasks, settings.machine
    names = folder_names(asked.policies)
    if settings.output.json is not None:
        check_file(settings.output.json, "--json")
    device_named(machine.device)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it tells of every default it takes
    manager, tasks = _tasks(asked.tasks, asked.include)
    found: dict[str, Any] = {}
    for name, folder in names.items():
        policy = named_policy(folder, machine, asked)
        if asked.chat and template_of(policy) is None:
            raise FrameError(
                f"--chat: the policy in {folder} has learned from no dialogue, and its tokenizer "
                "has no chat template: leave --chat out, or take a policy of textenv sft"
            )
        model = HarnessModel(
            policy,
            max_gen_toks=asked.max_gen_toks,
            batch_size=asked.rows,
            seed=machine.seed,
        )
        found[name] = lm_eval.simple_evaluate(
            model=model,
            tasks=tasks,
            task_manager=manager,
            num_fewshot=asked.shots,
            limit=asked.limit,
            apply_chat_template=asked.chat,
            system_instruction=asked.system,
            random_seed=machine.seed,
            numpy_random_seed=machine.seed,
            torch_random_seed=machine.seed,
            fewshot_random_seed=machine.seed,
        )
    Console().print(_table({name: one["results"] for name, one in found.items()}))
    if settings.output.json is not None:
        written = json.dumps(found, indent=2, default=handle_non_serializable, ensure_ascii=False)
        write_file(settings.output.json, written)


def _tasks(wanted: list[str], folder: Path | None) -> tuple[Any, list[str]]:
    """What knows the tasks, and their names; patterns are filled in.

    Raises:
        OptionError: There is no such folder, or no such task.
    """
    if folder is not None and not folder.is_dir():
        raise OptionError(f"--include: there is no folder {folder}")
    # To read all published tasks takes seconds: not if those of the folder are enough.
    for published in (False, True) if folder is not None else (True,):
        manager = TaskManager(
            include_path=None if folder is None else str(folder), include_defaults=published
        )
        unknown = [task for task in wanted if not manager.match_tasks([task])]
        if not unknown:
            return manager, manager.match_tasks(wanted)
    place = "" if folder is None else f", and {folder} has none of that name"
    raise OptionError(
        f"--tasks {unknown[0]}: lm-evaluation-harness knows no such task{place}; lm_eval ls tasks "
        "lists what it knows"
    )


def _table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """A row for each measure of each task, a column for each policy."""
    table = Table(title="lm-evaluation-harness", title_justify="left")
    table.add_column("task")
    table.add_column("measure")
    for name in results:
        table.add_column(name, justify="right", overflow="fold")
    first = next(iter(results.values()))
    for task, measured in first.items():
        for key in measured:
            measure, comma, of = key.partition(",")
            if not comma or measure.endswith("_stderr"):
                continue
            cells = [_cell(one[task], measure, of) for one in results.values()]
            table.add_row(task, measure if of == "none" else f"{measure} ({of})", *cells)
    return table


def _cell(measured: Mapping[str, Any], measure: str, of: str) -> str:
    error = measured.get(f"{measure}_stderr,{of}")
    said = f"{measured[f'{measure},{of}']:.4g}"
    return said if not isinstance(error, float) else f"{said} ± {error:.2g}"

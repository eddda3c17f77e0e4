"""The job of `textenv instruct`: instructions made up from seeds, written as they come."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from agents.commands.instruct import InstructSettings
from agents.feedback.from_models.self_instruct import (
    KEYWORDS,
    Filters,
    Instruction,
    Report,
    self_instruct,
)
from agents.jobs.machine import device_named
from agents.jobs.models import language_model
from agents.jobs.outputs import check_file
from agents.runs.record_files import append_records
from agents.runs.stages import Stages
from textenv.errors import PromptError
from textenv.records import read_records


def run(settings: InstructSettings) -> None:
    """Make up instructions, write them, and say what was dropped.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, making, machine = settings.task, settings.making, settings.machine
    device_named(machine.device)
    check_file(task.out, "--out")
    seeds = read_records(task.seeds, Instruction.from_record, "instructions")
    if not seeds:
        raise PromptError(f"there is no instruction in {task.seeds}")
    there = task.out.exists() and task.out.stat().st_size > 0
    made = read_records(task.out, Instruction.from_record, "instructions") if there else []
    done = len({one.instruction for one in made})
    model = language_model(
        task.model,
        machine,
        max_new_tokens=making.max_new_tokens,
        temperature=making.temperature,
    )
    report = Report()
    with Stages(console).bar("Instructions", task.count, "instructions") as advance:
        advance(done)
        for one in self_instruct(
            model,
            seeds,
            max(task.count - done, 0),
            made=made,
            shown=making.shown,
            most_requests=making.most_requests,
            filters=Filters(
                making.similar, making.shortest, making.longest, (*KEYWORDS, *making.keyword)
            ),
            seed=machine.seed + done,
            report=report,
        ):
            append_records(task.out, [one.to_record()])
            advance(done + report.kept)
    console.print(f"{done + report.kept} instructions are kept.", highlight=False)
    if report.dropped:
        console.print(dropped_table(report))
    if done + report.kept < task.count:
        console.print("The model made up no more that could be kept: give other seeds, or another.")
    console.print(f"Records: {task.out}", soft_wrap=True)


def dropped_table(report: Report) -> Table:
    """What was dropped and why, with an example of each."""
    table = Table(title="Dropped", title_justify="left")
    for name in ("reason", "how many", "such as"):
        table.add_column(name, justify="right" if name == "how many" else "left")
    for reason, count in report.dropped.most_common():
        table.add_row(reason, str(count), _short(report.examples[reason].split()))
    return table


def _short(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 60 else f"{text[:57]}..."

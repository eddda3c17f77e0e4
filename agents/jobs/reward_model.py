"""The job of `textenv reward-model`: a reward model from preferences."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from agents.commands.reward_model import RewardModelSettings
from agents.feedback import (
    Calibration,
    calibration,
    kwise,
    laid_flat,
    normalise,
    pair_accuracy,
    pairwise,
    plackett_luce,
    read_rankings,
    reward_model_steps,
    split_rankings,
)
from agents.jobs.begin import begin_with, with_lora
from agents.jobs.fit import fit_arguments
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_folder
from agents.runs.stages import Stages
from agents.supervised import read_examples
from agents.supervised.sft import steps_of
from policies.reward_model import RewardModel
from textenv.errors import MalformedRecordError
from textenv.records import read_files

LOSSES = {"kwise": kwise, "pairwise": pairwise, "plackett-luce": plackett_luce}


def run(settings: RewardModelSettings) -> None:
    """Train, examine and save the reward model.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, training, machine = settings.task, settings.training, settings.machine
    device = device_named(machine.device)
    check_folder(task.out, "--out")
    rankings = read_files(task.preferences, read_rankings)
    demonstrations = None if task.reference is None else _demonstrations(task.reference)
    learned, kept = split_rankings(rankings, task.held_out, machine.seed)
    policy = begin_with(task.policy, task.stop, task.no_bos).to(device)
    with_lora(policy, task.lora, machine.seed, task.policy)
    model = RewardModel.with_fresh_head(policy, machine.seed)
    total = steps_of(len(learned), training.epochs, training.batch_size)
    with Stages(console).bar("Reward model", total, "steps") as advance:
        for step in reward_model_steps(
            model,
            learned,
            loss=LOSSES[training.loss],
            epochs=training.epochs,
            batch_size=training.batch_size,
            precision=getattr(torch, machine.precision),
            seed=machine.seed,
            **fit_arguments(training),
        ):
            advance(step.number, f"loss {step.loss:.3f}  accuracy {step.accuracy:.2f}")
    with console.status("Examination"):
        normalise(model, *(demonstrations or laid_flat(learned)))
        accuracy, table = pair_accuracy(model, kept), calibration(model, kept)
    model.save(task.out)
    console.print(f"Accuracy on {sum(len(r.pairs()) for r in kept)} held-out pairs: {accuracy}")
    console.print(calibration_table(table))
    console.print(f"Reward model: {task.out}", soft_wrap=True)


def calibration_table(calibration: Calibration) -> Table:
    """How sure the model is, beside how often it is right."""
    title = f"Calibration on held-out pairs (expected error {calibration.error:.3f})"
    table = Table(title=title, title_justify="left")
    for name in ("probability", "pairs", "predicted", "observed"):
        table.add_column(name, justify="right")
    for part in calibration.bins:
        if part.pairs:
            numbers = (f"{part.predicted:.3f}", f"{part.observed:.3f}")
            table.add_row(f"{part.low:.2f} to {part.high:.2f}", str(part.pairs), *numbers)
    return table


def _demonstrations(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and last answers of a file for fine-tuning."""
    prompts, answers = [], []
    for example in read_examples(path):
        last = max(i for i, (_, is_answer) in enumerate(example.pieces) if is_answer)
        prompts.append("".join(text for text, _ in example.pieces[:last]))
        answers.append(example.pieces[last][0])
    if not prompts:
        raise MalformedRecordError(f"there is no example in {path}")
    return prompts, answers

"""`textenv reward-model`: a reward model from preferences."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agents.commands.errors import errors_as_messages
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
from agents.runs.stages import Stages
from agents.supervised import read_examples
from agents.supervised.sft import steps_of
from policies import TransformerPolicy
from policies.reward_model import RewardModel
from textenv.records import read_files


class Loss(StrEnum):
    """Names of the losses on the command line."""

    kwise = "kwise"
    pairwise = "pairwise"
    plackett_luce = "plackett-luce"


LOSSES = {Loss.kwise: kwise, Loss.pairwise: pairwise, Loss.plackett_luce: plackett_luce}


def reward_model_command(
    policy: Annotated[
        Path,
        typer.Option(
            help="The policy that the model begins as: a folder written by policy.save.",
            metavar="FOLDER",
        ),
    ],
    preferences: Annotated[
        list[Path],
        typer.Option(
            help="Rankings or pairs: .jsonl or .jsonl.gz with 'prompt', 'answers' and 'ranks', or "
            "'prompt', 'chosen' and 'rejected', or the dialogues of hh-rlhf. May be given several "
            "times.",
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where to save the model.", metavar="FOLDER")],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Demonstrations, in a form that `textenv sft` reads, over which the scores are "
            "to have the mean 0; the answers that it learns from, if not given.",
            metavar="FILE",
        ),
    ] = None,
    loss: Annotated[Loss, typer.Option(help="Of the scores of ranked answers.")] = Loss.kwise,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each ranking is seen.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts of an optimiser step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of matrices.")] = 0.1,
    held_out: Annotated[
        float, typer.Option(min=0.001, max=0.999, help="Share of the prompts to be held out.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Train a reward model on preferences between answers.

    It begins as the policy, usually the fine-tuned one, and is examined on prompts that are held
    out.
    """
    console = Console()
    with errors_as_messages(debug):
        rankings = read_files(preferences, read_rankings)
        demonstrations = None if reference is None else _demonstrations(reference)
        training, kept = split_rankings(rankings, held_out, seed)
        model = RewardModel.from_policy(TransformerPolicy.load(policy), seed)
        stages = Stages(console)
        total = steps_of(len(training), epochs, batch_size)
        with stages.bar("Reward model", total, "steps") as advance:
            for step in reward_model_steps(
                model,
                training,
                loss=LOSSES[loss],
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                seed=seed,
            ):
                advance(step.number, f"loss {step.loss:.3f}  accuracy {step.accuracy:.2f}")
        with console.status("Examination"):
            normalise(model, *(demonstrations or laid_flat(training)))
            accuracy, table = pair_accuracy(model, kept), calibration(model, kept)
        model.save(out)
        console.print(f"Accuracy on {sum(len(r.pairs()) for r in kept)} held-out pairs: {accuracy}")
        console.print(calibration_table(table))
        console.print(f"Reward model: {out}", soft_wrap=True)


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
    return prompts, answers

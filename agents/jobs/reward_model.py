"""The job of `textenv reward-model`: a reward model from preferences."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from agents.commands.reward_model import RewardModelSettings
from agents.distribution import Ranks
from agents.distribution.gathering import gathered
from agents.feedback import (
    Asked,
    Calibration,
    LengthBias,
    calibration,
    kwise,
    laid_flat,
    length_bias,
    normalise,
    pair_accuracy,
    pairwise,
    plackett_luce,
    remove_length,
    reward_model_steps,
)
from agents.feedback.reward_modelling import with_pairs
from agents.jobs.begin import begin_with_preferences
from agents.jobs.fit import fit_arguments
from agents.jobs.going_on import CHECKPOINT, unfinished
from agents.jobs.machine import divided
from agents.runs.stages import Stages
from agents.supervised import Fitting, read_examples
from agents.supervised.sft import steps_of
from policies import RewardModel, RewardModelEnsemble
from textenv.errors import MalformedRecordError
from textenv.frames import Frame

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
    work = unfinished(task.out / CHECKPOINT, settings, settings.saving, console)
    policy, learned, kept, template = begin_with_preferences(task, machine)
    members = [
        RewardModel.with_fresh_head(policy, machine.seed, template)
        if task.members == 1
        else RewardModel.from_policy(policy, machine.seed + number, template)
        for number in range(task.members)
    ]
    frame = members[0].frame
    demonstrations = laid_flat(learned, frame)
    if task.reference is not None:
        demonstrations = _demonstrations(task.reference, frame)
    for member in members:
        divided(member.trunk, machine)
    steps = steps_of(len(with_pairs(learned)), training.epochs, training.batch_size)
    fittings = [
        Fitting(
            member,
            steps=steps,
            precision=getattr(torch, machine.precision),
            seed=machine.seed + number,
            **fit_arguments(training),
        )
        for number, member in enumerate(members)
    ]
    with (
        Stages(console).bar("Reward model", steps * task.members, "steps") as advance,
        work.saving(*fittings) as saving,
    ):
        for number, (member, fitting) in enumerate(zip(members, fittings, strict=True)):
            for step in reward_model_steps(
                member,
                learned,
                loss=LOSSES[training.loss],
                epochs=training.epochs,
                batch_size=training.batch_size,
                seed=machine.seed + number,
                fitting=fitting,
            ):
                done = number * steps + step.number
                advance(done, f"loss {step.loss:.3f}  accuracy {step.accuracy:.2f}")
                saving.after(done)
        saving.finish()
    with ExitStack() as until_left, console.status("Examination"):
        for member in members:  # from here on all weights, where they were divided
            member.trunk = until_left.enter_context(gathered(member.trunk))
        before = [length_bias(member, kept) for member in members]
        for member in members:
            if task.remove_length:
                remove_length(member, learned)
            normalise(member, *demonstrations)
        model = members[0] if task.members == 1 else RewardModelEnsemble(members)
        accuracy, table = pair_accuracy(model, kept), calibration(model, kept)
        bias = length_bias(model, kept)
        alone = ", ".join(f"{pair_accuracy(member, kept).mean:.3f}" for member in members)
        Ranks.found().by_first(lambda: model.save(task.out))
    work.finished()
    console.print(f"Accuracy on {sum(len(r.pairs()) for r in kept)} held-out pairs: {accuracy}")
    if task.members > 1:
        console.print(f"Accuracy of the members: {alone}")
    console.print(calibration_table(table))
    console.print(length_table(bias, before if task.remove_length else []))
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


def length_table(bias: LengthBias, before: Sequence[LengthBias]) -> Table:
    """How scores and ranks go with length; `before` is of the members, if it was removed."""
    title = "Correlation with length among answers to one held-out prompt"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("correlation", justify="right")
    table.add_column("score a token", justify="right")
    for number, one in enumerate(before, start=1):
        name = "scores before it was removed" + (f", {number}" if len(before) > 1 else "")
        table.add_row(name, str(one.of_scores), f"{one.slope:.4f}")
    table.add_row("scores", str(bias.of_scores), f"{bias.slope:.4f}")
    table.add_row("what labellers prefer", str(bias.of_ranks), "")
    return table


def _demonstrations(path: Path, frame: Frame | None) -> tuple[list[Asked], list[str]]:
    """What each example of a file for fine-tuning asks last, and the answer."""
    prompts: list[Asked] = []
    answers = []
    for example in read_examples(path, frame, frame_texts=frame is not None):
        messages = example.messages
        if frame is not None and messages is not None:
            last = max(i for i, one in enumerate(messages) if one["role"] == "assistant")
            prompts.append(messages[:last])
            answers.append(messages[last]["content"])
        else:
            last = max(i for i, (_, is_answer) in enumerate(example.pieces) if is_answer)
            prompts.append("".join(text for text, _ in example.pieces[:last]))
            answers.append(example.pieces[last][0])
    if not prompts:
        raise MalformedRecordError(f"there is no example in {path}")
    return prompts, answers

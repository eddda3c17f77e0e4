"""The job of `textenv sft`: fine-tuning on examples of answers."""

import collections
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from agents.commands.sft import Choosing, SFTSettings
from agents.distribution import Ranks
from agents.distribution.gathering import gathered, load_weights, save_whole
from agents.jobs.begin import begin_training
from agents.jobs.environments import template_of_records
from agents.jobs.fit import fit_arguments
from agents.jobs.going_on import CHECKPOINT, unfinished
from agents.jobs.holding_out import hold_out
from agents.jobs.machine import divided
from agents.runs.stages import Stages
from agents.supervised import (
    Example,
    FitStep,
    Fitting,
    answer_loss,
    read_examples,
    sft_steps,
    whole_loss,
    with_language_modelling,
)
from agents.supervised.epochs import (
    Curve,
    Epoch,
    Measure,
    best_epoch,
    by_epoch,
    reward_model_score,
    write_curve,
)
from agents.supervised.sft import held_out_answer_loss, learnable, steps_of
from policies import Policy, RewardModel, tokenizer_of
from textenv.errors import MalformedRecordError, OptionError
from textenv.frames import load_frame
from textenv.records import example, read_files, read_records

LOSS, SCORE = "held-out loss", "reward model"
"""Names of what is measured after an epoch."""


def run(settings: SFTSettings) -> None:
    """Fine-tune and save the policy.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, training, machine = settings.task, settings.training, settings.machine
    work = unfinished(task.out / CHECKPOINT, settings, settings.saving, console)
    # All forms are looked at before the policy is loaded, whose template the second reading needs.
    look = partial(read_records, parse=example, what="examples")
    _, model = begin_training(task, machine, lambda: read_files(task.examples, look))
    tokenizer, context = tokenizer_of(model), model.context
    template = template_of_records(task.frame, model, has_messages=True)
    found = read_files(
        task.examples,
        partial(
            read_examples,
            template=load_frame(template, tokenizer),
            frame_texts=task.frame is not None,
        ),
    )
    if len(found) < 2:
        raise MalformedRecordError(f"there are {len(found)} examples; two or more are needed")
    usable = learnable(model, found)
    if not usable:
        raise MalformedRecordError(
            f"none of the {len(found)} examples has an answer within the context of {context} "
            f"tokens of {task.policy}: shorten the questions, or take a policy with a longer one"
        )
    kept, learned = hold_out(
        usable,
        lambda example: example.question,
        lambda different: round(task.held_out * different),
        np.random.default_rng(machine.seed),
    )
    if task.held_out and not kept:
        console.print("There are too few different questions to hold any out.")
    if len(usable) < len(found):
        console.print(
            f"{len(found) - len(usable)} of {len(found)} examples have no answer within the "
            f"context of {context} tokens and are left out."
        )
    loss = with_language_modelling(training.lm_weight) if training.lm_weight else answer_loss
    loss = whole_loss if training.whole else loss
    measures = _measures(settings.choosing, kept, model.device)
    total = steps_of(len(learned), training.epochs, training.batch_size)
    fitting = Fitting(
        divided(model, machine),
        steps=total,
        precision=getattr(torch, machine.precision),
        seed=machine.seed,
        **fit_arguments(training),
    )
    noted = work.numbers
    if noted:
        before = noted["before"]
    else:
        before = _loss(model, kept) if kept else math.nan
    curve = Curve.of(noted["curve"]) if noted else Curve()

    def numbers() -> dict[str, Any]:
        return {"before": before, "curve": curve.state()}

    with (
        Stages(console).bar("SFT", total, "steps") as advance,
        work.saving(fitting, numbers=numbers) as saving,
    ):

        def steps() -> Iterator[FitStep]:
            for step in sft_steps(
                model,
                learned,
                epochs=training.epochs,
                batch_size=training.batch_size,
                loss=loss,
                seed=machine.seed,
                fitting=fitting,
            ):
                advance(step.number, f"loss {step.loss:.3f}")
                yield step
                saving.after(step.number)  # once the end of an epoch is measured

        if measures:
            an_epoch = steps_of(len(learned), 1, training.batch_size)
            collections.deque(
                by_epoch(model, steps(), an_epoch, measures, task.out, curve), maxlen=0
            )
        else:
            collections.deque(steps(), maxlen=0)
        saving.finish()
    if measures:
        _choose(model, curve.epochs, settings.choosing.choose_by, task.out, console)
    save_whole(model, task.out)
    work.finished()
    if kept:
        after = _loss(model, kept)
        console.print(f"Loss of held-out answers, nats a token: {before:.3f} -> {after:.3f}")
    console.print(f"Policy: {task.out}", soft_wrap=True)


def _loss(model: Policy, kept: list[Example]) -> float:
    with gathered(model) as whole:
        return held_out_answer_loss(whole, kept)


def _measures(choosing: Choosing, kept: list[Example], device: torch.device) -> dict[str, Measure]:
    """What decides about epochs, the deciding one last; empty if the last epoch is kept.

    Raises:
        OptionError: Nothing is held out, or the reward model is missing or for nothing.
        CheckpointError: The reward model cannot be read.
    """
    by, folder = choosing.choose_by, choosing.reward_model
    if (by == "reward-model") != (folder is not None):
        raise OptionError("--choose-by reward-model and --reward-model FOLDER go together")
    if by == "last":
        return {}
    if not kept:
        raise OptionError(
            f"--choose-by {by} measures on held-out examples, and there are none: take --held-out "
            "above 0 and more different questions"
        )
    measures: dict[str, Measure] = {LOSS: partial(held_out_answer_loss, examples=kept)}
    if folder is not None:
        asked = kept[: choosing.choosing_questions]
        model = RewardModel.load(folder).to(device)
        measures[SCORE] = reward_model_score(model, asked, choosing.choosing_tokens)
    return measures


def _choose(model: Policy, curve: list[Epoch], by: str, out: Path, console: Console) -> None:
    """Put the best epoch's weights into `model`, and show and keep the curve."""
    name = SCORE if by == "reward-model" else LOSS
    best = best_epoch(curve, name, largest=name == SCORE)
    assert best.folder is not None
    load_weights(model, out / best.folder)
    Ranks.found().by_first(lambda: write_curve(out, curve, by, best))
    table = Table(title=f"Epochs, chosen by {by}", title_justify="left")
    for column in ("epoch", "loss of its steps", *best.measured, ""):
        table.add_column(column, justify="right")
    for epoch in curve:
        numbers = (epoch.loss, *epoch.measured.values())
        shown = ("" if math.isnan(number) else f"{number:.3f}" for number in numbers)
        table.add_row(str(epoch.number), *shown, "chosen" if epoch is best else "")
    console.print(table)

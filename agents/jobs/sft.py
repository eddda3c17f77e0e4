"""The job of `textenv sft`: fine-tuning on examples of answers."""

from functools import partial

import numpy as np
import torch
from rich.console import Console

from agents.commands.sft import SFTSettings
from agents.jobs.begin import begin_with, with_lora
from agents.jobs.environments import template_of_records
from agents.jobs.holding_out import hold_out
from agents.jobs.machine import device_named
from agents.jobs.outputs import check_folder
from agents.runs.stages import Stages
from agents.supervised import (
    answer_loss,
    read_examples,
    sft_steps,
    whole_loss,
    with_language_modelling,
)
from agents.supervised.sft import held_out_answer_loss, steps_of
from policies import tokenizer_of
from textenv.errors import MalformedRecordError
from textenv.frames import load_frame
from textenv.records import example, read_files, read_records


def run(settings: SFTSettings) -> None:
    """Fine-tune and save the policy.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, training, machine = settings.task, settings.training, settings.machine
    device = device_named(machine.device)
    check_folder(task.out, "--out")
    # All forms are looked at before the policy is loaded, whose template the second reading needs.
    read_files(task.examples, partial(read_records, parse=example, what="examples"))
    model = begin_with(task.policy, task.stop, task.no_bos).to(device)
    with_lora(model, task.lora, machine.seed, task.policy)
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
    usable = [e for e in found if any(e.encode(tokenizer, context)[1])]
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
    before = held_out_answer_loss(model, kept) if kept else float("nan")
    total = steps_of(len(learned), training.epochs, training.batch_size)
    with Stages(console).bar("SFT", total, "steps") as advance:
        for step in sft_steps(
            model,
            learned,
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            precision=getattr(torch, machine.precision),
            loss=loss,
            seed=machine.seed,
        ):
            advance(step.number, f"loss {step.loss:.3f}")
    model.save(task.out)
    if kept:
        after = held_out_answer_loss(model, kept)
        console.print(f"Loss of held-out answers, nats a token: {before:.3f} -> {after:.3f}")
    console.print(f"Policy: {task.out}", soft_wrap=True)

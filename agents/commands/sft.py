"""`textenv sft`: fine-tuning on examples of answers."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from agents.commands.errors import errors_as_messages
from agents.runs.stages import Stages
from agents.supervised import (
    answer_loss,
    read_examples,
    sft_steps,
    whole_loss,
    with_language_modelling,
)
from agents.supervised.sft import held_out_answer_loss, steps_of
from policies import TransformerPolicy, tokenizer_of
from textenv.errors import MalformedRecordError
from textenv.records import read_files


def sft_command(
    policy: Annotated[
        Path, typer.Option(help="What to begin with: a policy's folder.", metavar="FOLDER")
    ],
    examples: Annotated[
        list[Path],
        typer.Option(
            help=".jsonl or .jsonl.gz with 'messages', with 'instruction', 'input' and 'output', "
            "or with 'prompt' and 'response'. May be given several times.",
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where to save the policy.", metavar="FOLDER")],
    epochs: Annotated[int, typer.Option(min=1, help="Times that each example is seen.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of an optimiser step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 5e-4,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of matrices.")] = 0.0,
    whole: Annotated[
        bool, typer.Option("--whole", help="Learn the questions too, not the answers alone.")
    ] = False,
    lm_weight: Annotated[
        float,
        typer.Option(min=0, help="Weight of GPT-1's auxiliary loss over question and answer."),
    ] = 0.0,
    held_out: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the examples to be held out.")
    ] = 0.1,
    device: Annotated[str, typer.Option()] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Fine-tune a policy on examples of answers.

    Only answers are learned, each with the stop token behind it. All examples are checked before
    anything is trained.
    """
    console = Console()
    with errors_as_messages(debug):
        found = read_files(examples, read_examples)
        if len(found) < 2:
            raise MalformedRecordError(f"there are {len(found)} examples; two or more are needed")
        order = np.random.default_rng(seed).permutation(len(found))
        cut = round(held_out * len(found))
        kept, learned = ([found[i] for i in part] for part in np.split(order, [cut]))
        model = TransformerPolicy.load(policy).to(device)
        tokenizer, context = tokenizer_of(model), model.context
        usable = [e for e in learned if any(e.encode(tokenizer, context)[1])]
        if len(usable) < len(learned):
            console.print(
                f"{len(learned) - len(usable)} of {len(learned)} examples have no answer within "
                f"the context of {context} tokens and are left out."
            )
        loss = with_language_modelling(lm_weight) if lm_weight else answer_loss
        loss = whole_loss if whole else loss
        before = held_out_answer_loss(model, kept) if kept else float("nan")
        with Stages(console).bar(
            "SFT", steps_of(len(usable), epochs, batch_size), "steps"
        ) as advance:
            for step in sft_steps(
                model,
                usable,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                loss=loss,
                seed=seed,
            ):
                advance(step.number, f"loss {step.loss:.3f}")
        model.save(out)
        if kept:
            after = held_out_answer_loss(model, kept)
            console.print(f"Loss of held-out answers, nats a token: {before:.3f} -> {after:.3f}")
        console.print(f"Policy: {out}", soft_wrap=True)

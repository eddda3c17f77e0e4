"""`textenv preferences`: answers of a policy, ranked by a program or a person."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from agents.commands.errors import errors_as_messages
from agents.feedback import (
    Labeller,
    append_rankings,
    label_in_terminal,
    rank,
    sample_answers,
    snownlp_labeller,
    unranked,
    vader_labeller,
)
from agents.runs.stages import Stages
from policies import TransformerPolicy, tokenizer_of
from textenv import ListPrompts, load_prompts
from textenv.errors import InvalidRewardError
from textenv.loading import load_object
from textenv.records import short

TERMINAL = "terminal"
LABELLERS = {"vader": vader_labeller, "snownlp": snownlp_labeller}
FROM_A_FUNCTION = 256
AT_A_TIME, AT_A_TIME_FOR_PEOPLE = 64, 8
"""Prompts that are answered before their answers are ranked and written."""


def preferences_command(
    policy: Annotated[
        Path,
        typer.Option(help="Who answers: a folder written by policy.save.", metavar="FOLDER"),
    ],
    prompts: Annotated[
        str,
        typer.Option(
            help="Prompts, as the policy is to read them: a .txt file (one a line), a .jsonl file "
            "(records with a 'prompt'), or file.py:function.",
            metavar="FILE",
        ),
    ],
    labeller: Annotated[
        str,
        typer.Option(
            help="Who ranks the answers: vader (English) or snownlp (Chinese), which prefer what "
            "sounds friendly; terminal, which asks you; or file.py:function, a function of a "
            "prompt and a list of answers to a list of scores.",
            metavar="NAME",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="A .jsonl file for the rankings. Prompts that it holds already are skipped, so "
            "that the same command goes on where it was stopped.",
            metavar="FILE",
        ),
    ],
    answers_per_prompt: Annotated[
        int, typer.Option(min=2, help="Answers to be ranked against each other.")
    ] = 4,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts at most; else all of a file, or 256 of a function."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 24,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Sample several answers to each prompt and have them ranked.

    The file is what [bold]textenv reward-model[/bold] and DPO learn from.
    """
    console = Console()
    with errors_as_messages(debug):
        speaker = TransformerPolicy.load(policy)
        judge = None if labeller == TERMINAL else _labeller(labeller)
        asked = unranked(_texts(prompts, limit, seed, speaker), out)
        size = AT_A_TIME_FOR_PEOPLE if judge is None else AT_A_TIME

        def answers() -> Iterator[tuple[list[str], list[list[str]]]]:
            for begin in range(0, len(asked), size):
                some = asked[begin : begin + size]
                yield (
                    some,
                    sample_answers(
                        speaker,
                        some,
                        answers_per_prompt,
                        max_new_tokens=max_new_tokens,
                        temperature=temperature,
                        # By what is left: a call that goes on samples what the first would have.
                        seed=[seed, len(asked) - begin],
                    ),
                )

        if judge is None:
            each = (of_prompt for _, of_some in answers() for of_prompt in of_some)
            if not label_in_terminal(asked, each, out, console=console, seed=seed):
                console.print("Stopped; the same command goes on from here.")
        else:
            with Stages(console).bar("Preferences", len(asked), "prompts") as advance:
                done = 0
                for some, of_some in answers():
                    append_rankings(out, rank(judge, some, of_some))
                    done += len(some)
                    advance(done)
        console.print(f"Rankings: {out}", soft_wrap=True)


def _labeller(name: str) -> Labeller:
    """A labeller of ours, or the user's."""
    if name in LABELLERS:
        return LABELLERS[name]()
    found = load_object(name)
    if not callable(found):
        raise InvalidRewardError(
            f"the labeller {name} is {short(found)}, not a function of a prompt and its answers"
        )
    labeller: Labeller = found
    return labeller


def _texts(source: str, limit: int | None, seed: int, policy: TransformerPolicy) -> list[str]:
    """The prompts as texts."""
    prompts = load_prompts(source)
    if isinstance(prompts, ListPrompts):
        chosen = list(prompts.prompts[:limit])
    else:
        generator = np.random.default_rng(seed)
        count = limit or FROM_A_FUNCTION
        seeds = generator.integers(2**64, size=count, dtype=np.uint64)
        chosen = list(prompts.draw(seeds))
    decode = tokenizer_of(policy).decode
    return [p.text if p.tokens is None else decode(p.tokens.tolist()) for p in chosen]

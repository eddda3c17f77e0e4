"""The command `textenv chat`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from agents.commands.errors import errors_as_messages
from agents.evaluation.safety import profanity_classifier, refuse_toxic
from agents.jobs.chat import Chat, Continuation, Sampling, Talker, Voice
from agents.runs.streaming import visible
from policies import load_policy
from textenv.errors import PromptError

SAMPLING, TALK = "How to answer", "The conversation"
DEFAULT = Sampling()


def chat_command(
    folder: Annotated[
        Path, typer.Argument(help="A folder written by policy.save.", metavar="FOLDER")
    ],
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            help="Less is more predictable; 0 takes the likeliest token.",
            rich_help_panel=SAMPLING,
        ),
    ] = DEFAULT.temperature,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Keep only so many tokens.", rich_help_panel=SAMPLING),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            help="Keep only the likeliest tokens that together reach this probability.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest answer, in tokens; half of the policy's context if not given.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of the sampling; another one each time if not given.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Continue each text as it is: for a policy that was never taught to chat.",
            rich_help_panel=TALK,
        ),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(
            help="A message in front of all, such as how to behave.", rich_help_panel=TALK
        ),
    ] = None,
    refuse_above: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Refuse what is toxic with at least this probability (English; 0.5 is usual). "
            "Answers then appear whole.",
            rich_help_panel=TALK,
        ),
    ] = None,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=TALK),
    ] = False,
) -> None:
    """Talk to a policy in the terminal.

    /reset forgets the conversation, /exit (or Ctrl-D) ends it, Ctrl-C stops an answer.
    """
    if plain and system is not None:
        raise typer.BadParameter("--plain knows no roles: leave --system out")
    with errors_as_messages(debug):
        policy = load_policy(folder)
        longest = max_new_tokens or max(policy.context // 2, 1)
        voice = Voice(
            policy,
            Sampling(longest, temperature, top_k, top_p),
            np.random.default_rng(seed),
            None if refuse_above is None else refuse_toxic(profanity_classifier(), refuse_above),
        )
        talker: Talker = Continuation(voice) if plain else Chat(voice, system=system)
        typer.echo("/reset forgets the conversation, /exit ends it.")
        talk(talker)


def talk(talker: Talker) -> None:
    """Read lines and answer them until /exit or the end of the input."""
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if text == "/exit":
            return
        if text == "/reset":
            talker.reset()
        elif text:
            try:
                talker.answer(text, lambda piece: typer.echo(visible(piece), nl=False))
            except PromptError as error:  # the next one may fit
                typer.echo(str(error), nl=False)
            except KeyboardInterrupt:
                pass
            typer.echo()

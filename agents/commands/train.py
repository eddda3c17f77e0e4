"""`textenv train`: PPO on any reward."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from agents.commands.errors import errors_as_messages
from agents.evaluation import bootstrap_interval
from agents.jobs.train import Result, Settings, train
from agents.runs.run_folder import RunFolder
from agents.runs.samples import comparison_table

TASK, SIZE, OUTPUT = "What to learn", "How to learn", "Where to"
SHOWN_SAMPLES = 5
ROWS = (
    ("tokens_per_answer", "tokens an answer", ".1f"),
    ("kl_per_answer", "KL an answer (nats)", ".3f"),
    ("kl_per_token", "KL a token (nats)", ".4f"),
    ("reference_perplexity", "perplexity under the first policy", ".1f"),
    ("distinct_2", "distinct pairs of tokens", ".3f"),
)
DEFAULT = Settings()


def train_command(
    context: typer.Context,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompts: a .txt file (one a line), a .jsonl file (records with a 'prompt'), or "
            "file.py:function.",
            metavar="FILE",
            rich_help_panel=TASK,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Your reward, a function of a list of episodes: file.py:function or "
            "package.module:function.",
            metavar="FILE:NAME",
            rich_help_panel=TASK,
        ),
    ] = None,
    reward_model: Annotated[
        str | None,
        typer.Option(
            help="Instead of --reward: the folder of a reward model. The critic begins as its "
            "copy.",
            metavar="FOLDER",
            rich_help_panel=TASK,
        ),
    ] = None,
    ptx_text: Annotated[
        str | None,
        typer.Option(
            help="A text file that PPO goes on reading, so that it forgets less (PPO-ptx).",
            metavar="FILE",
            rich_help_panel=TASK,
        ),
    ] = None,
    ptx_coef: Annotated[
        float, typer.Option(min=0, help="Weight of that text.", rich_help_panel=SIZE)
    ] = DEFAULT.ptx_coef,
    policy: Annotated[
        str | None,
        typer.Option(
            help="The policy to begin with: a folder written by policy.save, or a model of Hugging "
            "Face, by its folder or its name on the hub (owner/name).",
            metavar="FOLDER",
            rich_help_panel=TASK,
        ),
    ] = None,
    lora: Annotated[
        int,
        typer.Option(
            min=0,
            help="Train a LoRA adapter of this rank on a model of Hugging Face instead of its "
            "weights; the model without it is the reference.",
            metavar="RANK",
            rich_help_panel=SIZE,
        ),
    ] = DEFAULT.lora,
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens that are in memory at once in an update; fewer take less memory and a "
            "little more time.",
            rich_help_panel=SIZE,
        ),
    ] = DEFAULT.micro_batch_tokens,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to choose in all.", rich_help_panel=SIZE)
    ] = DEFAULT.tokens,
    rows: Annotated[
        int, typer.Option(min=1, help="Answers written at a time.", rich_help_panel=SIZE)
    ] = DEFAULT.rows,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, in tokens.", rich_help_panel=SIZE)
    ] = DEFAULT.max_new_tokens,
    kl_coef: Annotated[
        float,
        typer.Option(
            min=0,
            help="Weight of the KL penalty: more keeps the answers closer to those of the first "
            "policy.",
            rich_help_panel=SIZE,
        ),
    ] = DEFAULT.kl_coef,
    learning_rate: Annotated[
        float,
        typer.Option(min=0, help="Of PPO; falls linearly to a tenth.", rich_help_panel=SIZE),
    ] = DEFAULT.learning_rate,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Of the sampling.", rich_help_panel=SIZE)
    ] = DEFAULT.temperature,
    pretrain_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            help="Tokens of speeches the GPT reads beforehand, if no --policy is given.",
            rich_help_panel=SIZE,
        ),
    ] = DEFAULT.pretrain_tokens,
    eval_answers: Annotated[
        int,
        typer.Option(
            min=2, help="Answers of the evaluation before and after.", rich_help_panel=SIZE
        ),
    ] = DEFAULT.eval_answers,
    seed: Annotated[
        int, typer.Option(min=0, help="Of everything random.", rich_help_panel=SIZE)
    ] = DEFAULT.seed,
    run_folder: Annotated[
        Path,
        typer.Option(help="A folder for the run is made in this one.", rich_help_panel=OUTPUT),
    ] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder; no other option but --tokens is needed.",
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Train a language model with PPO on a reward.

    Without options: a small GPT learns to read from State of the Union addresses, then learns to
    finish their sentences in a friendlier way. Takes about three minutes on two processor cores,
    and keeps the GPT for the next time.

    With [bold]--prompts[/bold], [bold]--reward[/bold] or [bold]--policy[/bold], one or all of them:
    the same with your own.
    """
    console = Console()
    settings = Settings(
        prompts=prompts,
        reward=reward,
        reward_model=reward_model,
        ptx_text=ptx_text,
        ptx_coef=ptx_coef,
        policy=policy,
        lora=lora,
        micro_batch_tokens=micro_batch_tokens,
        tokens=tokens,
        rows=rows,
        max_new_tokens=max_new_tokens,
        kl_coef=kl_coef,
        learning_rate=learning_rate,
        temperature=temperature,
        pretrain_tokens=pretrain_tokens,
        eval_answers=eval_answers,
        seed=seed,
    )
    with errors_as_messages(debug):
        run = None
        if resume is not None:
            run = RunFolder(resume)
            settings = _settings_to_resume(context, run, settings)
        _show(train(settings, run_folder, console, run), console)


def _settings_to_resume(context: typer.Context, run: RunFolder, given: Settings) -> Settings:
    """The settings of the run, with the tokens that were asked for now, if any were."""
    named = {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    if others := named - {"resume", "tokens", "debug"}:
        names = ", ".join("--" + name.replace("_", "-") for name in sorted(others))
        raise typer.BadParameter(f"a resumed run keeps its settings; leave out {names}")
    settings = Settings.of_run(run)
    return replace(settings, tokens=given.tokens) if "tokens" in named else settings


def _show(result: Result, console: Console) -> None:
    """Samples side by side, then the numbers."""
    before, after = result.before, result.after
    chosen = np.linspace(0, len(before.samples) - 1, SHOWN_SAMPLES).astype(int)
    console.print(comparison_table(*([e.samples[i] for i in chosen] for e in (before, after))))

    table = Table(title=_title(result), title_justify="left")
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    scores = (str(bootstrap_interval(e.scores)) for e in (before, after))
    table.add_row("mean reward", *scores)
    for name, label, form in ROWS:
        table.add_row(label, *(format(getattr(e, name), form) for e in (before, after)))
    console.print(table)
    console.print(f"Gain in reward: {result.gain}, paired by prompt. Intervals: 95%, bootstrap.")
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items())
    console.print(f"Time: {seconds}")
    path = result.run.path
    console.print(f"Run folder: {path} (policy: {path / 'checkpoint' / 'policy'})", soft_wrap=True)


def _title(result: Result) -> str:
    count = len(result.before.samples)
    if result.held_out:
        return f"{count} answers to prompts that were held out"
    return f"{count} answers to the training prompts, too few to hold any out"

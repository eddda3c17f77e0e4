"""The command `textenv eval`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from agents.commands.errors import errors_as_messages
from agents.evaluation import (
    JUDGES,
    Judge,
    compare,
    comparison_table,
    judge_reward,
    load_judge,
    profanity_classifier,
    table_cells,
    with_template,
)
from agents.jobs.environments import environment_for
from agents.report import TableData, token_traces, write_report
from agents.runs.stages import Stages
from agents.supervised.token_stream import open_stream
from policies import Policy, load_policy, tokenizer_of
from policies.reward_model import RewardModel
from textenv import ListPrompts, Prompt, TextVectorEnv, load_prompts
from textenv.errors import (
    PromptError,
    VocabularyMismatchError,
)
from textenv.loading import load_object

ANSWERS, MEASURES, OUTPUT = "What to answer, and how", "What to measure", "Where to"
TRACED = 5
"""Prompts whose answers the report shows token by token."""


def evaluate_command(
    policies: Annotated[
        list[Path],
        typer.Argument(help="Folders written by policy.save.", metavar="POLICY..."),
    ],
    prompts: Annotated[
        str,
        typer.Option(
            help="Prompts: a .txt file (one a line), a .jsonl file (records with a 'prompt'), or "
            "file.py:function.",
            metavar="FILE",
            rich_help_panel=ANSWERS,
        ),
    ],
    template: Annotated[
        str | None,
        typer.Option(
            help="A function from a prompt's text to the text to use, such as a few-shot prompt: "
            "file.py:function, or agents.evaluation:step_by_step.",
            metavar="FILE:NAME",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    answers: Annotated[
        int,
        typer.Option(
            min=2,
            help="Answers of each policy; the prompts are taken at even distances.",
            rich_help_panel=ANSWERS,
        ),
    ] = 256,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, in tokens.", rich_help_panel=ANSWERS)
    ] = 24,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Of the sampling.", rich_help_panel=ANSWERS)
    ] = 0.8,
    rows: Annotated[
        int, typer.Option(min=1, help="Answers written at a time.", rich_help_panel=ANSWERS)
    ] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.", rich_help_panel=ANSWERS)] = 0,
    reward: Annotated[
        str | None,
        typer.Option(
            help="A function of a list of episodes: file.py:function or package.module:function.",
            metavar="FILE:NAME",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    reward_model: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --reward: the folder of a reward model.",
            metavar="FOLDER",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help=f"Who decides which answer wins: {', '.join(JUDGES)}, or a function of prompt and "
            "answer, file.py:function. Without it the reward does.",
            metavar="NAME",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A policy from which to measure the KL, of the same vocabulary.",
            metavar="FOLDER",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Held-out text for the perplexity: a file of UTF-8, or of tokens (.tokens).",
            metavar="FILE",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    toxicity: Annotated[
        bool,
        typer.Option(
            "--toxicity", help="Measure how toxic the answers are.", rich_help_panel=MEASURES
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write all figures there.", rich_help_panel=OUTPUT),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write a page there, with some answers token by token.", rich_help_panel=OUTPUT
        ),
    ] = None,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Compare policies on the same prompts: one table.

    Give at least one of [bold]--reward[/bold], [bold]--reward-model[/bold] and
    [bold]--judge[/bold]. Wins are against the first policy, with 95% intervals over prompts; those
    against each other are in the file of [bold]--json[/bold].
    """
    if reward is not None and reward_model is not None:
        raise typer.BadParameter("give --reward or --reward-model, not both")
    if reward is None and reward_model is None and judge is None:
        raise typer.BadParameter("nothing to measure: give --reward, --reward-model or --judge")
    console = Console()
    with errors_as_messages(debug):
        decides = None if judge is None else load_judge(judge)
        scored = _reward(reward, reward_model, decides)
        asked = _prompts(prompts, template, answers, seed)
        named = {name: _policy(folder) for name, folder in _names(policies).items()}
        against = None if reference is None else _reference(reference, named)
        classifier = profanity_classifier() if toxicity else None

        def environment(policy: Policy) -> TextVectorEnv:
            return environment_for(
                policy,
                ListPrompts(asked),
                scored,
                rows=min(rows, len(asked)),
                max_new_tokens=max_new_tokens,
            )

        def stream(policy: Policy) -> NDArray[np.integer]:
            assert text is not None
            return _stream(text, policy)

        with Stages(console).bar("Answers", len(named) * len(asked), "answers") as advance:
            table = compare(
                named,
                environment,
                asked,
                reference=against,
                judge=decides,
                classifier=classifier,
                stream=None if text is None else stream,
                temperature=temperature,
                seed=seed,
                on_answers=advance,
            )
        title = f"{len(asked)} answers of each policy"
        console.print(comparison_table(table, title))
        if json_file is not None:
            figures = [row.numbers() for row in table]
            json_file.write_text(json.dumps(figures, indent=2), encoding="utf-8")
        if report is not None:
            traces = [
                trace
                for name, policy in named.items()
                for trace in token_traces(
                    policy,
                    environment(policy),
                    asked[:TRACED],
                    reference=against,
                    temperature=temperature,
                    seed=seed,
                    title=name,
                )
            ]
            tables = [TableData(title, *table_cells(table), note="Intervals: 95%, bootstrap.")]
            write_report(report, "Evaluation", tables=tables, traces=traces)


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by their own names, or by their paths where these are not unique."""
    short = {folder.name: folder for folder in folders}
    return short if len(short) == len(folders) else {str(folder): folder for folder in folders}


def _policy(folder: Path) -> Policy:
    policy = load_policy(folder)
    tokenizer_of(policy, f"the policy in {folder}")
    return policy


def _reference(folder: Path, policies: Mapping[str, Policy]) -> Policy:
    reference = _policy(folder)
    for name, policy in policies.items():
        if policy.tokenizer.fingerprint != reference.tokenizer.fingerprint:  # type: ignore[union-attr]
            raise VocabularyMismatchError(
                f"{name} and the reference {folder} have different vocabularies: there is no KL "
                "between them"
            )
    return reference


def _reward(reward: str | None, model: Path | None, judge: Judge | None) -> Any:
    """What the environments pay: the judge's scores if nothing else was given."""
    if model is not None:
        return RewardModel.load(model)
    if reward is not None:
        return reward
    assert judge is not None
    return judge_reward(judge)


def _prompts(source: str, template: str | None, count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts: at even distances from a list, drawn from anything else."""
    loaded = load_prompts(source)
    if isinstance(loaded, ListPrompts):
        every = loaded.prompts
        places = np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)
        asked = [every[place] for place in places]
    else:
        seeds = np.random.default_rng(seed).integers(2**64, size=count, dtype=np.uint64)
        asked = list(loaded.draw(seeds))
    return asked if template is None else with_template(asked, load_object(template))


def _stream(path: Path, policy: Policy) -> NDArray[np.integer]:
    """Held-out text as ids of the policy's vocabulary."""
    assert policy.tokenizer is not None
    if path.suffix == ".tokens":
        return open_stream(path, policy.tokenizer)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is no text of UTF-8: {error}") from error
    ids = np.array(policy.tokenizer.encode(text), dtype=np.int64)
    if len(ids) < 2:
        raise PromptError(f"{path} has {len(ids)} tokens: there is none to predict")
    return ids

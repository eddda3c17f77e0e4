"""Training in sight: a progress bar, loggers and tables of samples around `Learner.updates`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from gymnasium.vector import VectorEnv
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from agents.runs.loggers import Logger
from agents.runs.samples import across_scores, append_samples, rollout_samples, samples_table
from agents.runs.update import Update
from policies import Policy
from textenv.errors import TokenizerError
from textenv.tokenizers import Tokenizer


class Training(Protocol):
    """What is watched: a `Learner`."""

    policy: Policy
    envs: VectorEnv[Any, Any, Any]
    tokens_done: int

    def updates(self, total_tokens: int) -> Iterator[Update]:
        """Train until this many tokens have been chosen in all, one update at a time."""
        ...


def learn(
    learner: Training,
    total_tokens: int,
    *,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
    samples_every: int | None = None,
    samples_file: str | Path | None = None,
    console: Console | None = None,
) -> list[Update]:
    """Train to the end and show how it goes.

    Args:
        learner: Who learns; one that was loaded goes on where it was.
        total_tokens: Train until so many tokens have been chosen in all.
        progress: Show a progress bar. Where the output is no terminal, only its last state is
            printed.
        loggers: Each is given the `numbers` of every update. They are not closed.
        samples_every: Print a few answers with their scores every so many updates.
        samples_file: Append the printed samples to this file too, as JSON lines.
        console: Where to print; the terminal if None.

    Returns:
        The updates, without their rollouts.

    Raises:
        ValueError: `samples_every` is less than 1, or `samples_file` is given without it.
        TokenizerError: Samples are wanted, but neither the policy nor the environment has a
            tokenizer.
    """
    shown = watch(
        learner,
        total_tokens,
        progress=progress,
        loggers=loggers,
        samples_every=samples_every,
        samples_file=samples_file,
        console=console,
    )
    return [replace(update, rollout=None) for update in shown]


def watch(
    learner: Training,
    total_tokens: int,
    *,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
    samples_every: int | None = None,
    samples_file: str | Path | None = None,
    sample_count: int = 5,
    console: Console | None = None,
) -> Iterator[Update]:
    """`learner.updates(total_tokens)` with what `learn` shows, for loops that do more.

    Args and errors are those of `learn`; `sample_count` is the number of answers in a table.
    """
    tokenizer = _samples_tokenizer(learner, samples_every, samples_file)
    with TrainingBar(learner.tokens_done, total_tokens, console, progress) as bar:
        for update in learner.updates(total_tokens):
            bar.show(update)
            for logger in loggers:
                logger.log(update.tokens, numbers(update))
            if tokenizer is not None and samples_every and update.number % samples_every == 0:
                assert update.rollout is not None
                samples = across_scores(rollout_samples(update.rollout, tokenizer), sample_count)
                bar.console.print(samples_table(samples, f"after {update.tokens:,} tokens"))
                if samples_file is not None:
                    append_samples(samples_file, samples, step=update.tokens)
            yield update


def numbers(update: Update) -> dict[str, float]:
    """All numbers of an update by name, for loggers.

    A return or a KL that was not measured (NaN) is left out. Any other NaN stays: it is a fault
    that should be seen.
    """
    measured = {"score": update.score, "kl": update.kl}
    return {
        "update": update.number,
        "episodes": update.episodes,
        **{name: value for name, value in measured.items() if not math.isnan(value)},
        "entropy": update.entropy,
        "tokens_per_second": update.tokens_per_second,
        **update.metrics,
    }


class TrainingBar(Progress):
    """Two lines: how far training is, and what the last update measured.

    Args:
        done: Tokens chosen before it began.
        total: Tokens to be chosen in all.
        console: Where to; the terminal if None.
        visible: False shows nothing.
    """

    def __init__(self, done: int, total: int, console: Console | None, visible: bool):
        super().__init__(
            BarColumn(bar_width=None),
            TextColumn("{task.fields[tokens]}"),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not visible,
            expand=True,
            refresh_per_second=2,  # training wants the processor
            speed_estimate_period=600,  # a single update may take minutes
        )
        tokens = f"{_short(done)}/{_short(total)} tokens"
        self.add_task("", total=total, completed=done, tokens=tokens, numbers="first rollout")

    def show(self, update: Update) -> None:
        """Show the state after `update`."""
        task = self.tasks[0]
        speed = f"{_short(update.tokens_per_second)} tokens/s"
        self.update(
            task.id,
            completed=update.tokens,
            tokens=f"{_short(update.tokens)}/{_short(task.total or 0)} tokens  {speed}",
            numbers=f"update {update.number}  return {_number(update.score)}  "
            f"KL {_number(update.kl)} nats/token  entropy {_number(update.entropy)} nats",
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """The two lines."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:  # there is none yet when rich first asks
            yield Text(task.fields["numbers"])


def _short(count: float) -> str:
    """Three digits of a count: 5, 12.3k, 1.5M."""
    for unit in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"


def _number(value: float) -> str:
    """A measured number, or a dash for one that was not measured."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def _samples_tokenizer(
    learner: Training, samples_every: int | None, samples_file: str | Path | None
) -> Tokenizer | None:
    """What makes texts of tokens if samples are wanted; mistakes are found before training."""
    if samples_every is None:
        if samples_file is not None:
            raise ValueError(
                f"samples_file is {str(samples_file)!r} but samples_every is None: say after how "
                "many updates samples are taken, such as samples_every=10"
            )
        return None
    if samples_every < 1:
        raise ValueError(f"samples_every is {samples_every}; it must be 1 or more, or None")
    for owner in (learner.policy, learner.envs.unwrapped):
        tokenizer: Tokenizer | None = getattr(owner, "tokenizer", None)
        if tokenizer is not None:
            return tokenizer
    raise TokenizerError(
        "neither the policy nor the environment has a tokenizer, so samples cannot be shown as "
        "text: set policy.tokenizer, or leave samples_every out"
    )

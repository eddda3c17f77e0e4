"""Watching a training: a progress bar, loggers and tables of samples around `Learner.updates`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from gymnasium.vector import VectorEnv
from rich.console import Console

from agents.runs.bars import Bar, short
from agents.runs.loggers import ConsoleLogger, Logger, log_update
from agents.runs.samples import (
    Sample,
    SamplesFile,
    evenly_ranked,
    rollout_samples,
    samples_table,
)
from agents.runs.update import Update
from policies import Policy
from textenv.errors import TokenizerError
from textenv.tokenizers import Tokenizer


class Training(Protocol):
    """The part of a `Learner` that is used here."""

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
        learner: The learner; a loaded one resumes where it stopped.
        total_tokens: Train until this many tokens have been chosen in all.
        progress: Show a progress bar. Without a terminal, a line is printed at each tenth
            of the training and every 30 seconds, unless a `ConsoleLogger` prints its own.
        loggers: Each is given the numbers of every update, and samples and histograms if it takes
            them: see `agents.runs.loggers`. They are not closed.
        samples_every: After this many updates print a few answers with their scores, and give them
            to the loggers that take texts.
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

        for update in watch(learner, 1_000_000, loggers=loggers):
            if update.number % 50 == 0:
                learner.save(run.checkpoint)

    What the body of the loop prints, by `print` or by a console, stands above the bar. It may show
    a bar of its own, such as that of an evaluation, on the same console.

    Args and errors are those of `learn`; `sample_count` is the number of answers in a table.
    """
    tokenizer = _samples_tokenizer(learner, samples_every, samples_file)
    file = None if samples_file is None else SamplesFile(samples_file)
    lines = not any(isinstance(logger, ConsoleLogger) for logger in loggers)
    with TrainingBar(learner.tokens_done, total_tokens, console, progress, lines) as bar:
        for update in learner.updates(total_tokens):
            bar.show(update)
            samples: Sequence[Sample] = ()
            if tokenizer is not None and samples_every and update.number % samples_every == 0:
                assert update.rollout is not None
                ended = rollout_samples(update.rollout, tokenizer)
                samples = evenly_ranked(ended, sample_count, lambda sample: sample.score)
                bar.console.print(samples_table(samples, f"after {update.tokens:,} tokens"))
                if file is not None:
                    file.append(samples, step=update.tokens)
            log_update(loggers, update, samples)
            yield update


class TrainingBar(Bar):
    """Two lines: how far training is, and what the last update measured.

    Args:
        done: Tokens chosen before the bar began.
        total: Tokens to be chosen in all.
        console: Where to print; the terminal if None.
        visible: False shows nothing.
        lines: Without a terminal: True prints a line now and then, False only the last state.
    """

    def __init__(
        self, done: int, total: int, console: Console | None, visible: bool, lines: bool = True
    ):
        super().__init__(
            total,
            "tokens",
            done=done,
            pieces=["first rollout"],
            console=console,
            visible=visible,
            lines=lines,
        )

    def show(self, update: Update) -> None:
        """Show the state after `update`."""
        spread = "" if math.isnan(update.score_std) else f" ± {_number(update.score_std)}"
        pieces = [
            f"update {update.number}",
            f"score {_number(update.score)}{spread}",
            f"KL {'-' if update.kl is None else _number(update.kl)} nats/token",
            f"entropy {_number(update.entropy)} nats",
        ]
        self.move(update.tokens, pieces, speed=f"{short(update.tokens_per_second)} tokens/s")


def _number(value: float) -> str:
    """A measured number, or a dash for one that was not measured."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def _samples_tokenizer(
    learner: Training, samples_every: int | None, samples_file: str | Path | None
) -> Tokenizer | None:
    """The tokenizer for samples, None if none are wanted; mistakes are found before training."""
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

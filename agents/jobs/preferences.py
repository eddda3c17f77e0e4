"""The job of `textenv preferences`: answers of a policy, ranked by a program or a person."""

from collections.abc import Iterator

import numpy as np
from rich.console import Console

from agents.commands.preferences import PreferencesSettings
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
from agents.jobs.machine import device_named, to_machine
from agents.runs.stages import Stages
from policies import Policy, TransformerPolicy, tokenizer_of
from textenv import ListPrompts, load_prompts
from textenv.errors import InvalidRewardError
from textenv.loading import load_object
from textenv.records import short
from textenv.tokenizers import decode_prompt

TERMINAL = "terminal"
LABELLERS = {"vader": vader_labeller, "snownlp": snownlp_labeller}
FROM_A_FUNCTION = 256
AT_A_TIME, AT_A_TIME_FOR_PEOPLE = 64, 8
"""Prompts that are answered before their answers are ranked and written."""


def run(settings: PreferencesSettings) -> None:
    """Sample answers, have them ranked, and write the rankings.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, wanted, seed = settings.task, settings.answers, settings.machine.seed
    device_named(settings.machine.device)
    speaker = to_machine(TransformerPolicy.load(task.policy), settings.machine)
    judge = None if task.labeller == TERMINAL else _labeller(task.labeller)
    asked = unranked(_texts(task.prompts, task.limit, seed, speaker), task.out)
    size = AT_A_TIME_FOR_PEOPLE if judge is None else AT_A_TIME

    def answers() -> Iterator[tuple[list[str], list[list[str]]]]:
        for begin in range(0, len(asked), size):
            some = asked[begin : begin + size]
            yield (
                some,
                sample_answers(
                    speaker,
                    some,
                    wanted.answers_per_prompt,
                    max_new_tokens=wanted.max_new_tokens,
                    temperature=wanted.temperature,
                    # By what is left: a call that goes on samples what the first would have.
                    seed=[seed, len(asked) - begin],
                ),
            )

    if judge is None:
        each = (of_prompt for _, of_some in answers() for of_prompt in of_some)
        if not label_in_terminal(asked, each, task.out, console=console, seed=seed):
            console.print("Stopped; the same command goes on from here.")
    else:
        with Stages(console).bar("Preferences", len(asked), "prompts") as advance:
            done = 0
            for some, of_some in answers():
                append_rankings(task.out, rank(judge, some, of_some))
                done += len(some)
                advance(done)
    console.print(f"Rankings: {task.out}", soft_wrap=True)


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


def _texts(source: str, limit: int | None, seed: int, policy: Policy) -> list[str]:
    """The prompts as texts."""
    prompts = load_prompts(source)
    if isinstance(prompts, ListPrompts):
        chosen = list(prompts.prompts[:limit])
    else:
        generator = np.random.default_rng(seed)
        count = limit or FROM_A_FUNCTION
        seeds = generator.integers(2**64, size=count, dtype=np.uint64)
        chosen = list(prompts.draw(seeds))
    tokenizer = tokenizer_of(policy)
    return [
        p.text if p.tokens is None else decode_prompt(tokenizer, p.tokens.tolist()) for p in chosen
    ]

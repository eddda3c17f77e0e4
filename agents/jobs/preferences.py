"""The job of `textenv preferences`: answers of a policy, ranked by a program or a person."""

from collections.abc import Iterator

import numpy as np
from rich.console import Console

from agents.commands.preferences import PreferencesSettings
from agents.feedback import (
    append_rankings,
    label_in_terminal,
    rank,
    sample_answers,
    unranked,
)
from agents.jobs.begin import begin_with
from agents.jobs.environments import fit_prompts, room_for_prompts
from agents.jobs.labellers import named_labeller, try_labeller
from agents.jobs.machine import device_named, to_machine
from agents.jobs.outputs import check_file
from agents.runs.stages import Stages
from policies import Policy, tokenizer_of
from textenv import ListPrompts, Prompt, PromptSource, load_prompts
from textenv.tokenizers import decode_prompt

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
    check_file(task.out, "--out")
    speaker = to_machine(begin_with(task.policy, task.stop, task.no_bos), settings.machine)
    labeller = named_labeller(task.labeller, settings.judging, settings.machine)
    judge = labeller.label
    room = room_for_prompts(speaker, wanted.max_new_tokens - 1)  # the last is not read any more
    chosen = ListPrompts(chosen_prompts(task.prompts, task.limit, seed))
    fitting = fit_prompts(chosen, speaker, room, wanted.long_prompts, console)
    asked = unranked(texts_of(fitting, speaker), task.out)
    for prompt in asked[:1]:  # before anything takes long
        try_labeller(labeller, prompt)
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
            try:
                for some, of_some in answers():
                    append_rankings(task.out, rank(judge, some, of_some))
                    done += len(some)
                    advance(done)
            except KeyboardInterrupt as error:
                error.__notes__ = [f"{done} prompts are ranked. The same command goes on."]
                raise
    labeller.tell(console)
    console.print(f"Rankings: {task.out}", soft_wrap=True)


def chosen_prompts(source: str, limit: int | None, seed: int) -> list[Prompt]:
    """The prompts, at most `limit` of them."""
    prompts = load_prompts(source)
    if isinstance(prompts, ListPrompts):
        return list(prompts.prompts[:limit])
    generator = np.random.default_rng(seed)
    count = limit or FROM_A_FUNCTION
    return list(prompts.draw(generator.integers(2**64, size=count, dtype=np.uint64)))


def texts_of(prompts: PromptSource, policy: Policy) -> list[str]:
    """The prompts of a list as texts."""
    assert isinstance(prompts, ListPrompts)
    tokenizer = tokenizer_of(policy)
    return [
        p.text if p.tokens is None else decode_prompt(tokenizer, p.tokens.tolist())
        for p in prompts.prompts
    ]

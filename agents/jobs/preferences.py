"""The job of `textenv preferences`: answers of a policy, ranked by a program or a person."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from rich.console import Console

from agents.commands.preferences import PreferencesSettings
from agents.feedback import (
    Asked,
    label_in_terminal,
    rank,
    sample_answers,
    unranked,
)
from agents.jobs.begin import begin_with
from agents.jobs.environments import fit_prompts, room_for_prompts, template_of_records
from agents.jobs.labellers import named_labeller, try_labeller
from agents.jobs.machine import device_named, to_machine
from agents.jobs.outputs import check_file
from agents.runs.record_files import append_whole, cut_half_record
from agents.runs.stages import Stages
from policies import Policy, tokenizer_of
from textenv import ListPrompts, Prompt, PromptSource, load_prompts
from textenv.frames import Frame, load_frame
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
    template = template_of_records(
        task.frame, speaker, any(prompt.messages is not None for prompt in chosen.prompts)
    )
    frame = load_frame(template, tokenizer_of(speaker))
    fitting = fit_prompts(chosen, speaker, room, wanted.long_prompts, console, frame)
    cut_half_record(task.out)
    asked = unranked(asked_of(fitting, speaker, frame), task.out)
    for prompt in asked[:1]:  # before anything takes long
        try_labeller(labeller, prompt)
    size = AT_A_TIME_FOR_PEOPLE if judge is None else AT_A_TIME

    def answers() -> Iterator[tuple[list[Asked], list[list[str]]]]:
        for begin in range(0, len(asked), size):
            some = asked[begin : begin + size]
            yield (
                some,
                sample_answers(
                    speaker,
                    some,
                    wanted.answers_per_prompt,
                    frame=frame,
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
                    ranked = rank(judge, some, of_some)
                    # All or none: a call that goes on draws the answers that this one would have.
                    named = (replace(ranking, labeller=task.labeller) for ranking in ranked)
                    append_whole(task.out, [ranking.to_record() for ranking in named])
                    done += len(some)
                    advance(done)
            except KeyboardInterrupt as error:
                error.add_note(f"{done} prompts are ranked. The same command goes on.")
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


def asked_of(prompts: PromptSource, policy: Policy, frame: Frame | None) -> list[Asked]:
    """The prompts of a list: as texts, or through a frame as what the user says."""
    assert isinstance(prompts, ListPrompts)
    tokenizer = tokenizer_of(policy)
    asked: list[Asked] = []
    for prompt in prompts.prompts:
        if prompt.tokens is not None:
            asked.append(decode_prompt(tokenizer, prompt.tokens.tolist()))
        elif frame is None:
            asked.append(prompt.text)
        else:
            asked.append(prompt.messages or [{"role": "user", "content": prompt.text}])
    return asked

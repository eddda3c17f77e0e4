"""The job of `textenv revise`: answers, critiques and revisions, written as they come."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from agents.commands.revise import ReviseSettings
from agents.feedback.from_models.language_model import LanguageModel
from agents.feedback.from_models.principles import HELPFUL, read_principles
from agents.feedback.from_models.revision import Revision, as_messages, revise
from agents.feedback.rankings import Asked
from agents.jobs.machine import device_named
from agents.jobs.models import language_model
from agents.jobs.outputs import check_file
from agents.jobs.preferences import chosen_prompts
from agents.runs.record_files import append_records
from agents.runs.stages import Stages
from textenv import Prompt
from textenv.errors import PromptError
from textenv.records import messages_of, read_records, short

AT_A_TIME = 16
"""Questions that are answered and revised before they are written."""


def run(settings: ReviseSettings) -> None:
    """Answer, criticise, rewrite, and write the records.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    task, writing, machine = settings.task, settings.writing, settings.machine
    device_named(machine.device)
    check_file(task.out, "--out")
    principles = [HELPFUL] if task.principles is None else read_principles(task.principles)
    asked = [_asked(p) for p in chosen_prompts(task.prompts, task.limit, machine.seed)]
    done = set(read_records(task.out, _question, "revised answers")) if task.out.exists() else set()
    left = [one for key, one in {_key(a): a for a in asked}.items() if key not in done]

    def model_named(name: str) -> LanguageModel:
        return language_model(
            name,
            machine,
            max_new_tokens=writing.max_new_tokens,
            temperature=writing.temperature,
        )

    model = model_named(task.model)
    answerer = model if task.policy is None else model_named(task.policy)
    unchanged = 0
    with Stages(console).bar("Revision", len(left), "questions") as advance:
        for begin in range(0, len(left), AT_A_TIME):
            some = left[begin : begin + AT_A_TIME]
            revised = revise(
                model,
                some,
                answerer.write(some),
                principles=principles,
                times=writing.times,
                seed=machine.seed,
            )
            kept = [r for r in revised if _is_revised(r)]
            unchanged += len(revised) - len(kept)
            append_records(task.out, [r.to_record() for r in kept])
            advance(begin + len(some))
    console.print(
        f"{len(left) - unchanged} answers were revised; {unchanged} revisions were empty or the "
        "first answer again, and are left out.",
        highlight=False,
    )
    console.print(f"Records: {task.out}", soft_wrap=True)


def _asked(prompt: Prompt) -> Asked:
    """The text of a question, or the messages of a dialogue.

    Raises:
        PromptError: It is given as ids, or does not end in what somebody says to the assistant.
    """
    said = prompt.messages
    if prompt.tokens is not None:
        raise PromptError("--prompts: a prompt of token ids cannot be revised: give texts")
    if said is not None and said[-1]["role"] == "assistant":
        raise PromptError(
            f"--prompts: the dialogue that ends in {short(prompt.last_text)} ends in an answer: "
            "nothing is asked; write it as 'messages', whose last answer is left out, or end it in "
            "a question"
        )
    return prompt.text if said is None else [dict(message) for message in said]


def _key(asked: Asked) -> str:
    """Equal for questions that are the same."""
    return json.dumps(as_messages(asked), sort_keys=True)


def _is_revised(revision: Revision) -> bool:
    """Whether there is an answer, and another one than the first."""
    return bool(revision.last.strip()) and revision.last.strip() != revision.answer.strip()


def _question(record: Mapping[str, Any]) -> str:
    """The key of the question of a record that this command wrote.

    Raises:
        ValueError: It is another record.
    """
    said = messages_of(record.get("messages"), "messages")
    return _key(said[:-1])

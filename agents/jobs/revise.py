"""The job of `textenv revise`: answers, critiques and revisions, written as they come."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from agents.commands.revise import ReviseSettings
from agents.feedback.from_models.language_model import LanguageModel
from agents.feedback.from_models.principles import HELPFUL, read_principles
from agents.feedback.from_models.revision import Revision, revise
from agents.jobs.machine import device_named
from agents.jobs.models import language_model
from agents.jobs.outputs import check_file
from agents.jobs.preferences import chosen_prompts
from agents.runs.record_files import append_records
from agents.runs.stages import Stages
from textenv import Prompt
from textenv.errors import PromptError
from textenv.records import read_records, short

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
    questions = [_alone(p) for p in chosen_prompts(task.prompts, task.limit, machine.seed)]
    done = set(read_records(task.out, _question, "revised answers")) if task.out.exists() else set()
    left = [text for text in dict.fromkeys(questions) if text not in done]

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


def _alone(prompt: Prompt) -> str:
    """The text of a question to which nothing belongs that was said before.

    Raises:
        PromptError: There is more: it would be answered and learned without.
    """
    said = prompt.messages
    if said is not None and (len(said) > 1 or said[0]["role"] != "user"):
        raise PromptError(
            f"--prompts: the prompt that ends in {short(prompt.last_text)} is a conversation of "
            f"{len(said)} messages, and single questions are revised: leave such prompts out"
        )
    return prompt.last_text


def _is_revised(revision: Revision) -> bool:
    """Whether there is an answer, and another one than the first."""
    return bool(revision.last.strip()) and revision.last.strip() != revision.answer.strip()


def _question(record: Mapping[str, Any]) -> str:
    """The question of a record that this command wrote.

    Raises:
        ValueError: It is another record.
    """
    try:
        said = record["messages"][0]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("the record has no 'messages'") from None
    return str(said)

"""`textenv harness`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import Machine, Published


@dataclass(frozen=True, kw_only=True)
class Tasks(Published):
    """What to ask, and how.

    Attributes:
        policies: Folders written by policy.save, or models of Hugging Face, by their folders or
            their names on the hub (owner/name).
        tasks: A task or a group of lm-evaluation-harness, such as arc_easy, or several by a
            pattern, such as mmlu_*. May be given several times.
        include: Folder with tasks of your own, as the harness's YAML files.
        shots: Worked examples before each question; what a task says, if not given.
        limit: Questions of each task, the first ones; all of them if not given.
        chat: Ask in the chat template of the dialogues that a policy has learned from; worked
            examples are earlier turns.
        system: A system message, or a text in front of each prompt without --chat.
        max_gen_toks: Longest answer, in tokens, where a task does not say; 256, or half of a
            shorter context, if not given.
        rows: Answers that are written at a time.
    """

    policies: list[Path] = setting(metavar="POLICY...", positional=True)
    tasks: list[str] = setting(metavar="NAME")
    include: Path | None = setting(None, metavar="FOLDER")
    shots: int | None = setting(None, minimum=0)
    limit: int | None = setting(None, minimum=1)
    chat: bool = False
    system: str | None = None
    max_gen_toks: int | None = setting(None, minimum=1)
    rows: int = setting(64, minimum=1)


@dataclass(frozen=True)
class Output:
    """What to write.

    Attributes:
        json: Write what the harness returns to this file, answers to each question included.
    """

    json: Path | None = setting(None, metavar="FILE")


@dataclass(frozen=True)
class HarnessSettings:
    """Ask policies the tasks of lm-evaluation-harness: one table.

    Its hundreds of published tasks are fetched from the hub; tasks of your own are YAML files that
    may read local ones. Needs the extra `evaluation`.
    """

    tasks: Tasks
    machine: Machine
    output: Output

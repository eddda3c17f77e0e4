"""A person writes answers: demonstrations for fine-tuning, in a terminal."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from agents.feedback.rankings import Asked, as_text
from agents.feedback.terminal import QUIT
from agents.runs.record_files import append_records
from textenv.records import read_records

HELP = (
    'Your answer; an empty line ends it. Nothing at all skips the question; "q" alone stops, and '
    "Ctrl-C too, without the answer that was not ended."
)


def write_demonstrations(
    prompts: Sequence[Asked], path: str | os.PathLike[str], *, console: Console | None = None
) -> bool:
    """Ask a person to answer each prompt, and add the answers to a file that `textenv sft` reads.

    Each answer is in the file before the next prompt is shown; prompts that are there are not shown
    again.

    Args:
        prompts: Texts or messages; a text is what the user says.
        path: A `.jsonl` file; it is made if it does not exist.
        console: Where to show the prompts; a new console if None.

    Returns:
        Whether all were shown; False after `q`.

    Raises:
        MalformedRecordError: Some lines of the file are no demonstrations.
    """
    console, path = console or Console(), Path(path)
    left = undemonstrated(prompts, path)
    for number, prompt in enumerate(left, start=1):
        console.rule(f"{number} of {len(left)}")
        console.print(Panel(Text(as_text(prompt)), title="Prompt"))
        console.print(HELP, style="dim", highlight=False)
        answer = _typed(console)
        if answer is None:
            return False
        if not answer:
            continue
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        record = {"messages": [*asked, {"role": "assistant", "content": answer}]}
        append_records(path, [record])
    return True


def undemonstrated(prompts: Iterable[Asked], path: Path) -> list[Asked]:
    """The prompts that have no answer in the file yet."""
    there = path.exists() and path.stat().st_size > 0
    done = set(read_records(path, _question, "demonstrations")) if there else set()

    def key(prompt: Asked) -> str:
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return json.dumps(said, sort_keys=True)

    return [prompt for prompt in prompts if key(prompt) not in done]


def _question(record: dict[str, object]) -> str:
    messages = record.get("messages")
    if not isinstance(messages, list) or len(messages) < 2:
        raise ValueError("the record has no 'messages' with an answer")
    return json.dumps(messages[:-1], sort_keys=True)


def _typed(console: Console) -> str | None:
    """The lines up to an empty one; None if the person stops."""
    lines: list[str] = []
    while True:
        try:
            line = console.input("" if lines else "> ")
        except EOFError:
            return "\n".join(lines) or None
        if not lines and line.strip().lower() == QUIT:
            return None
        if not line.strip():
            return "\n".join(lines)
        lines.append(line.rstrip())

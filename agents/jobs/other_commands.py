"""Files of records that were meant for another command."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from textenv.errors import TextEnvError
from textenv.records.files import rows

KINDS = {
    "preferences": "answers that are compared, for textenv reward-model or dpo (--preferences)",
    "examples": "examples of answers, for textenv sft (--examples)",
    "texts": "texts with labels, for textenv classifier (--texts)",
    "text": "text, for textenv pretrain (--text)",
}
"""What files hold, by the option that names them."""

KEYS = {
    frozenset(("chosen", "rejected")): "preferences",
    frozenset(("answers", "ranks")): "preferences",
    frozenset(("messages",)): "examples",
    frozenset(("prompt", "response")): "examples",
    frozenset(("prompt", "completion")): "examples",
    frozenset(("instruction", "output")): "examples",
    frozenset(("text", "label")): "texts",
    frozenset(("text",)): "text",
}
"""What a record is that has these keys; the first that fits."""


def meant_for(task: Any) -> Iterator[str]:
    """Sentences about files that another command reads, for what was raised about them.

    Args:
        task: Options of a command, some of them in `KINDS`.
    """
    for option in KINDS:
        for path in getattr(task, option, []):
            kind = kind_of(path)
            if kind not in (None, option):
                yield f"{path} seems to hold {KINDS[kind]}."


def kind_of(path: Path) -> str | None:
    """The option that names files such as this one, by its first record; None if none is known."""
    if path.suffix == ".txt":
        return "text"
    record = None
    with suppress(TextEnvError):
        record = next((row for _, row in rows(path, "records") if isinstance(row, dict)), None)
    return next((kind for keys, kind in KEYS.items() if keys <= {*(record or ())}), None)

"""What is said of values and records that cannot be used."""

from collections.abc import Sequence

MAX_PROBLEMS_SHOWN = 10


def listed(problems: Sequence[str]) -> str:
    """The first ten problems, one a line, and how many there are beyond."""
    more = len(problems) - MAX_PROBLEMS_SHOWN
    shown = [*problems[:MAX_PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return "\n".join(shown)


def short(value: object) -> str:
    """A value as Python writes it, cut to 80 characters, for error messages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

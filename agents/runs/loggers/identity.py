"""The name by which a tracking service knows a run, kept in the run's folder."""

import secrets
from collections.abc import Callable
from pathlib import Path


def remembered(path: Path, make: Callable[[], str]) -> str:
    """The text in the file at `path`, or what `make` gives, which is then written there.

    A resumed run is then the same run for the service.
    """
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made + "\n", encoding="utf-8")
    return made


def new_id() -> str:
    """Eight random letters and digits."""
    return secrets.token_hex(4)

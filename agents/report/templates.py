"""Filling in the templates of this folder."""

from pathlib import Path
from typing import Any

from agents.runs.streaming import visible
from textenv.imports import optional


def write_page(path: str | Path, template: str, **content: Any) -> Path:
    """Write a page to `path`, whose folder is made if needed.

    Texts are escaped wherever they stand, and control characters are escaped by the filter
    `visible`.

    Raises:
        MissingExtraError: `jinja2` is not installed.
    """
    with optional("jinja2", extra="train", purpose="a report"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "cell": cell}
    page = environment.get_template(template).render(**content)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def cell(value: object) -> str:
    """A value as a cell of a table shows it."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)

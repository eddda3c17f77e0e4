"""The job of `textenv data`: cleaning, filters, duplicates, contamination and mixtures of files."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.commands.data import DataSettings, Steps
from agents.jobs.outputs import check_file, write_file
from agents.jobs.weights import files_and_weights
from textenv.data import (
    FILTERS,
    Curation,
    Document,
    Mixture,
    Read,
    curate,
    gopher_quality,
    read_documents,
)
from textenv.errors import OptionError, PromptError
from textenv.files import check_there
from textenv.records import read_files


def run(settings: DataSettings) -> None:
    """Read, clean, drop, write and report.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console = Console()
    files, steps = settings.files, settings.steps
    texts, weights = files_and_weights(files.text)
    if weights is not None and files.count is None:
        raise OptionError("the files have weights: say how many documents to draw, with --count")
    check_there([*texts, *files.held_out], "documents")
    check_file(files.out, "--out")
    if files.out.resolve() in {path.resolve() for path in (*texts, *files.held_out)}:
        raise OptionError(f"--out {files.out} is read, too, and would be lost: name another file")
    if files.out.suffix != ".jsonl":
        raise OptionError(f"--out {files.out}: JSON lines are written, so it must end in .jsonl")
    with console.status("Reading"):
        documents = read_files(texts, read_documents)
        held_out = [one.text for one in read_files(files.held_out, read_documents)]
    if not documents:
        raise PromptError(f"there is no document in {', '.join(map(str, texts))}")
    with console.status("") as status:
        done = curate(
            documents,
            repair=not steps.unrepaired,
            boilerplate=steps.boilerplate,
            filters=_filters(steps),
            exact=not steps.keep_repeated,
            near=steps.near,
            held_out=held_out,
            ngram=steps.ngram,
            drop_overlapping=not steps.keep_overlapping,
            on_step=lambda step, left: status.update(f"{step}, {left:,} documents"),
        )
    written, read = done.documents, None
    if files.count is not None:
        mixture = _mixture(done.documents, texts, weights, files.seed)
        written, read = list(islice(mixture.items(), files.count)), mixture.read(files.count)
    report = done.to_json() | {"written": len(written)}
    if read is not None:
        report["mixture"] = {name: one._asdict() for name, one in read.items()}
    # Parquet has dates and others that JSON has not.
    lines = (json.dumps(one.record, ensure_ascii=False, default=str) + "\n" for one in written)
    write_file(files.out, "".join(lines))
    beside = files.out.with_suffix(".report.json")
    write_file(beside, json.dumps(report, ensure_ascii=False, indent=2))
    _show(console, done, read)
    console.print(f"{len(written):,} documents: {files.out}", soft_wrap=True)
    console.print(f"Report: {beside}", soft_wrap=True)


def _filters(steps: Steps) -> Mapping[str, Callable[[str], str | None]]:
    own = {"gopher-quality": partial(gopher_quality, fewest_words=steps.fewest_words)}
    return {name: (FILTERS | own)[name] for name in steps.filters}


def _mixture(
    documents: list[Document], files: list[Path], weights: list[float] | None, seed: int
) -> Mixture[Document]:
    """The kept documents by their file.

    Raises:
        PromptError: Nothing of a file is left.
    """
    sources: dict[str, list[Document]] = {str(path): [] for path in files}
    for one in documents:
        sources[one.place.rpartition(":")[0]].append(one)
    empty = [name for name, some in sources.items() if not some]
    if empty:
        raise PromptError(f"nothing is left of {', '.join(empty)} that could be drawn")
    given = None if weights is None else dict(zip(sources, weights, strict=True))
    return Mixture(sources, given, seed=seed)


def _show(console: Console, done: Curation, read: Mapping[str, Read] | None) -> None:
    """The report as tables."""
    table = Table(
        title=f"{done.read:,} documents, {len(done.documents):,} kept", title_justify="left"
    )
    for name in ("step", "reason", "such as"):
        table.add_column(name)
    table.add_column("dropped", justify="right")
    for (step, reason), count in done.counts().items():
        first = done.examples(step, reason)[0]
        shown = f"{first.place} {' '.join(first.text.split())[:40]}"
        table.add_row(step, reason, Text(shown), f"{count:,}")
    console.print(table)
    console.print(f"Repaired: {done.repaired:,} documents.")
    if done.lines:
        console.print(f"Boilerplate: {len(done.lines):,} different lines were taken out.")
    if done.contamination is not None:
        found = done.contamination
        console.print(
            f"Held out: {found.overlapping} of {found.judged} texts that are long enough "
            f"({len(found.shares)} in all) share words with {len(found.documents):,} documents."
        )
    for name, one in (read or {}).items():
        console.print(
            f"{name}: {one.items:,} documents, {one.share:.1%}, read {one.epochs:.2f} times",
            soft_wrap=True,
        )

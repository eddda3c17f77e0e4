"""`textenv data`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting

FILTERS = ("gopher-quality", "gopher-repetition", "c4")
"""Those of `textenv.data.FILTERS`."""


@dataclass(frozen=True)
class Files:
    """What to read and to write.

    Attributes:
        text: A .txt file, which is one document, or a .jsonl, .json, .csv, .tsv or .parquet file,
            perhaps with .gz, .bz2, .xz or .zst: records with a 'text', or conversations, examples
            and rankings. May be given several times, each perhaps with a weight for --count:
            a.jsonl:0.7.
        held_out: Texts to be measured on, in the same forms: documents that share something with
            them are dropped. May be given several times.
        out: A .jsonl file for what is kept. The report lies beside it, as .report.json.
        count: Documents to write, drawn from the files by their weights, each file again and again
            if need be; all of them once, in their order, if not given.
        seed: Seed of the order with --count.
    """

    text: list[Path] = setting(metavar="FILE[:WEIGHT]")
    out: Path = setting(metavar="FILE")
    held_out: list[Path] = setting([], metavar="FILE")
    count: int | None = setting(None, minimum=1)
    seed: int = setting(0, minimum=0)


@dataclass(frozen=True)
class Steps:
    """What to do, in this order.

    Attributes:
        unrepaired: Leave broken encodings, control characters and spaces as they are.
        boilerplate: Take out lines that stand in this many texts or more; 0 takes out none.
        filters: Drop what a filter of Gopher or C4 drops; gopher-quality and c4 are for languages
            with spaces between words. May be given several times.
        fewest_words: Fewest words for gopher-quality.
        keep_repeated: Keep documents whose words are those of an earlier one.
        near: Drop documents that are this similar to an earlier one, such as 0.8 (Jaccard
            similarity of their runs of five words); 0 drops none.
        ngram: Words in a row that a document and a held-out text share for it to be a copy.
        keep_overlapping: Report such documents, and keep them.
    """

    unrepaired: bool = False
    boilerplate: int = setting(0, minimum=0)
    filters: list[str] = setting([], names=FILTERS)
    fewest_words: int = setting(50, minimum=0)
    keep_repeated: bool = False
    near: float = setting(0.0, minimum=0.0, maximum=1.0)
    ngram: int = setting(13, minimum=1)
    keep_overlapping: bool = False


@dataclass(frozen=True)
class DataSettings:
    """Clean files of text or of records, and drop what is bad, repeated or held out.

    Prints how much each step dropped and why, and writes it with examples beside the result.
    """

    files: Files
    steps: Steps

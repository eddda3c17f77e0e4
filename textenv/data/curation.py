"""Documents through all steps of data work, with what each step dropped and why."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from textenv.data.cleaning import each_text, repaired, repeated_lines, without_lines
from textenv.data.contamination import Contamination, contamination
from textenv.data.documents import Document, document, is_page
from textenv.data.duplicates import exact_duplicates, near_duplicates

EXAMPLES = 3
"""Dropped documents of each reason that a report shows."""

EMPTY, LINES, EXACT, NEAR = "empty", "boilerplate", "exact duplicates", "near duplicates"
CONTAMINATION = "contamination"


class Drop(NamedTuple):
    """A document that was dropped.

    Attributes:
        place: Where it was read.
        step: Which step dropped it.
        reason: Why.
        text: Its beginning.
    """

    place: str
    step: str
    reason: str
    text: str


@dataclass
class Curation:
    """What is left of documents, and what is not.

    Attributes:
        documents: What is kept, in the order of reading.
        read: Documents that were read.
        repaired: Documents that a repair changed.
        lines: Boilerplate lines that were taken out, with the number of documents that had them.
        drops: All documents that were dropped, in the order of the steps.
        contamination: What the kept documents and held-out texts share, if these were given.
    """

    documents: list[Document]
    read: int
    repaired: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    drops: list[Drop] = field(default_factory=list)
    contamination: Contamination | None = None

    def counts(self) -> dict[tuple[str, str], int]:
        """Dropped documents by step and reason."""
        return dict(Counter((drop.step, drop.reason.partition(":")[0]) for drop in self.drops))

    def examples(self, step: str, reason: str) -> list[Drop]:
        """Some of the documents that were dropped for a reason."""
        of_reason = (step, reason)
        found = [d for d in self.drops if (d.step, d.reason.partition(":")[0]) == of_reason]
        return found[:EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        report: dict[str, Any] = {
            "read": self.read,
            "kept": len(self.documents),
            "repaired": self.repaired,
            "boilerplate_lines": self.lines,
            "dropped": [
                {
                    "step": step,
                    "reason": reason,
                    "documents": count,
                    "examples": [drop._asdict() for drop in self.examples(step, reason)],
                }
                for (step, reason), count in self.counts().items()
            ],
        }
        if self.contamination is not None:
            shares = self.contamination.shares
            report["held_out"] = {
                "texts": len(shares),
                "long_enough": self.contamination.judged,
                "overlapping": self.contamination.overlapping,
                "shares": [None if share != share else float(share) for share in shares],
            }
        return report


def curate(
    documents: Iterable[Document],
    *,
    repair: bool = True,
    boilerplate: int = 0,
    filters: Mapping[str, Callable[[str], str | None]] | None = None,
    exact: bool = True,
    near: float = 0,
    held_out: Sequence[str] = (),
    ngram: int = 13,
    drop_overlapping: bool = True,
    on_step: Callable[[str, int], object] = lambda step, left: None,
) -> Curation:
    """Clean documents, then drop the bad, the repeated and those that are to be measured on.

    The steps are in this order, and each sees what the ones before it left.

    Args:
        documents: All of them are held in memory.
        repair: Put broken encodings, control characters and white space right; see `repaired`.
        boilerplate: Take out lines that stand in this many documents or more; 0 takes out none.
            Conversations keep theirs, which belong to their form.
        filters: By name, functions that say why a text should be dropped, or None, such as those of
            `textenv.data.FILTERS`.
        exact: Drop documents whose words are those of an earlier one.
        near: Drop documents that are this similar to an earlier one; see `near_duplicates`. 0 drops
            none.
        held_out: Texts to be measured on.
        ngram: Words that a document and a held-out text share for it to be a copy.
        drop_overlapping: Drop these documents; if not, they are only reported.
        on_step: Called with the name of each step that begins and the number of documents left.

    Raises:
        MissingExtraError: A step needs a package that is not installed.
        ValueError: A number is out of its range.
    """
    kept = list(documents)
    done = Curation(kept, len(kept))

    def drop(step: str, reasons: Mapping[int, str]) -> None:
        for number, reason in reasons.items():
            place, _, text = done.documents[number]
            done.drops.append(Drop(place, step, reason, text[:200]))
        done.documents = [d for i, d in enumerate(done.documents) if i not in reasons]

    if repair:
        on_step("repair", len(done.documents))
        made = [each_text(one.record, repaired) for one in kept]
        done.documents = [
            one if record == one.record else document(record, one.place)
            for one, record in zip(kept, made, strict=True)
        ]
        done.repaired = sum(a is not b for a, b in zip(kept, done.documents, strict=True))
    if boilerplate:
        on_step(LINES, len(done.documents))
        done.lines = repeated_lines(
            (one.text for one in done.documents if is_page(one)), boilerplate
        )
        done.documents = [
            one._replace(record={**one.record, "text": text}, text=text)
            if is_page(one) and (text := without_lines(one.text, done.lines)) != one.text
            else one
            for one in done.documents
        ]
    drop(EMPTY, {i: "no text" for i, one in enumerate(done.documents) if not one.text.strip()})
    for name, reason_of in (filters or {}).items():
        on_step(name, len(done.documents))
        found = {i: reason_of(one.text) for i, one in enumerate(done.documents)}
        drop(name, {i: reason for i, reason in found.items() if reason is not None})
    if exact:
        on_step(EXACT, len(done.documents))
        same = exact_duplicates(one.text for one in done.documents)
        drop(EXACT, {i: f"repeats: {done.documents[j].place}" for i, j in same.items()})
    if near:
        on_step(NEAR, len(done.documents))
        alike = near_duplicates((one.text for one in done.documents), near)
        reasons = {
            i: f"repeats: {share:.2f} of {done.documents[j].place}"
            for i, (j, share) in alike.items()
        }
        drop(NEAR, reasons)
    if held_out:
        on_step(CONTAMINATION, len(done.documents))
        done.contamination = contamination((one.text for one in done.documents), held_out, ngram)
        if drop_overlapping:
            touched = done.contamination.documents.items()
            drop(CONTAMINATION, {i: f"held-out text: {run}" for i, (run, _) in touched})
    return done

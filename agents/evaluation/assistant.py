"""The exam of the assistant's closed world: what `conduct.examine` puts to a policy."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import islice
from typing import Any

from agents.evaluation.asking import Messages, Query
from agents.evaluation.conduct import Exam
from textenv.tasks import assistant
from textenv.tasks.assistant import Dialogue

EXAMPLES = 3
"""Examples that may stand before a question."""
_UNREAD = 10**6
"""Seeds of documents begin here for texts that nothing has learned from."""


def assistant_exam(
    language: str, count: int, seed: int = 0, *, part: str = "held_out", texts: int = 200
) -> Exam:
    """Questions of the assistant's world that training never asks.

    The examples before a question are of its own kind: training dialogues, or for a held-out kind
    other dialogues of it, which only the prompt shows.

    Args:
        language: `en` or `zh`.
        count: Dialogues of the kinds that training has; a third as many are of held-out kinds, and
            a quarter as many are asked in all wordings, and another quarter about a woman and about
            a man.
        seed: Seed of the questions.
        part: `held_out`, or `development`, to choose settings by: other questions, and none of the
            held-out kinds.
        texts: Documents for the perplexity, and openings of sentences to continue.
    """
    new_kinds = count // 3 if part == "held_out" else 0
    areas = {kind.name: kind for kind in assistant.KINDS}
    asked = [
        *assistant.dialogues(language, part, count, seed),
        *assistant.dialogues(language, "held_out_kinds", new_kinds, seed),
    ]
    shown = _examples(language, seed)

    def query(dialogue: Dialogue, number: int) -> Query:
        record = dialogue.prompt_record(number)
        kind = areas[dialogue.kind]
        columns = {
            **{key: value for key, value in record.items() if key != "prompt"},
            "area": kind.area,
            "new_kind": kind.held_out,
            "due": record["check"]["due"],
        }
        others = [messages for case, messages in shown[dialogue.kind] if case != dialogue.case]
        return Query(record["prompt"], columns, others[:EXAMPLES])

    return Exam(
        [query(d, number) for d in asked for number in range(1, len(d.exchanges) + 1)],
        [
            [query(dialogue, len(dialogue.exchanges)) for dialogue in group]
            for group in assistant.reworded(language, part, count // 4, seed + 1)
        ],
        _judge,
        assistant.openings(language, texts, seed),
        list(islice(assistant.documents(language, _UNREAD + seed), texts)),
        [
            {group: query(dialogue, 1) for group, dialogue in pair.items()}
            for pair in assistant.about_groups(language, count // 4, seed + 3, part)
        ],
    )


def _examples(language: str, seed: int) -> Mapping[str, list[tuple[str, Messages]]]:
    """Whole dialogues by kind, with what each asks."""
    found: dict[str, list[tuple[str, Messages]]] = defaultdict(list)
    for part in ("training", "held_out_kinds"):
        kinds = [k.name for k in assistant.KINDS if k.held_out == (part == "held_out_kinds")]
        made = assistant.dialogues(language, part, 2 * EXAMPLES * len(kinds), seed + 2)
        for dialogue in sorted(made, key=lambda dialogue: len(dialogue.exchanges)):
            found[dialogue.kind].append((dialogue.case, dialogue.record()["messages"]))
    return found


def _judge(columns: Mapping[str, Any], text: str) -> tuple[str, bool]:
    check = columns["check"]
    return str(assistant.verdict(check, text)), assistant.correct(check, text)

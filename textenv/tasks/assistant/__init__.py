"""A small closed world in which a model can be a helpful, truthful and harmless assistant.

Programs with seeds make all of it, in English and Chinese: documents to pretrain on, dialogues for
training and for evaluation, and the verdict on any answer. It needs no download and no torch.

    from textenv.tasks import assistant

    shown = assistant.dialogues("en", "training", 3000, seed=0)
    asked = assistant.dialogues("en", "held_out", 400, seed=0)
    assistant.correct(asked[0].exchanges[0].check, "I do not know.")
"""

from textenv.tasks.assistant.dialogues import (
    KINDS,
    PARTS,
    Dialogue,
    Exchange,
    Kind,
    about_groups,
    dialogues,
    reworded,
)
from textenv.tasks.assistant.documents import documents, openings
from textenv.tasks.assistant.facts import facts
from textenv.tasks.assistant.languages import PATTERNS
from textenv.tasks.assistant.verdicts import Verdict, correct, score, verdict
from textenv.tasks.assistant.words import WORDINGS
from textenv.tasks.assistant.world import (
    AssistantWorld,
    chinese_questions,
    english_questions,
    world_record,
)

__all__ = [
    "KINDS",
    "PARTS",
    "PATTERNS",
    "WORDINGS",
    "AssistantWorld",
    "Dialogue",
    "Exchange",
    "Kind",
    "Verdict",
    "about_groups",
    "chinese_questions",
    "correct",
    "dialogues",
    "documents",
    "english_questions",
    "facts",
    "openings",
    "reworded",
    "score",
    "verdict",
    "world_record",
]

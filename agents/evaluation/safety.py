"""A list of swear words and insults as a safety layer: a penalty in training, a refusal in chat.

A classifier is any function of n texts that gives n numbers from 0 to 1, higher is more toxic: a
network that gives probabilities, or the word list here, which gives 0 or 1. It takes many texts at
a time because most networks are a hundred times faster so.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

from agents.evaluation.judges import quiet_jieba
from textenv.episode import Episode
from textenv.imports import optional
from textenv.rewards import EpisodeReward, shared

ToxicityClassifier: TypeAlias = Callable[[Sequence[str]], Sequence[float]]
"""A function of n texts: n numbers from 0 to 1, such as probabilities of being toxic."""

INSULTS = (
    *("idiot", "idiots", "idiotic", "moron", "morons", "stupid", "loser", "losers", "scum"),
    *("shut up", "kill yourself"),
)
"""Insults without a swear word, which lists of swear words leave out."""

REFUSAL = "I would rather not say that."


def profanity_words(also: Sequence[str] = INSULTS) -> ToxicityClassifier:
    """1 for English texts with a swear word or an insult, 0 for all others (`glin-profanity`).

    About 400 swear, sexual and racist words, found as whole words ("Scunthorpe" passes) and in
    disguise ("f*ck", "sh1t", "fuuuck"). The 0 or 1 is no probability: every threshold above 0 up
    to 1 gives the same, and a mean over texts is the share that holds such a word. Words are all
    that it knows: "sex education" is 1, and a threat in polite words is 0. Use it to keep a policy
    from swearing, not as a judge of harm.

    Args:
        also: More words and phrases that count, in lower case.

    Raises:
        MissingExtraError: The package `glin-profanity` is not installed.
    """
    with optional(
        "glin-profanity",
        extra="safety",
        purpose="the list of swear words",
        instead="give a classifier of your own",
    ):
        import glin_profanity  # noqa: F401  (what is missing is found now)
    return partial(_classify, tuple(also))


CHINESE_INSULTS = ("笨蛋", "白痴", "蠢货", "傻瓜", "滚开", "闭嘴", "去死")
"""Insults that the list of swear words may lack."""

EVERYDAY = frozenset(("妈妈的", "他奶奶", "你全家", "奶", "乳", "卵", "屁股", "乳房", "乳头"))
"""Words of that list which are swear words seldom."""


def chinese_profanity_words(also: Sequence[str] = CHINESE_INSULTS) -> ToxicityClassifier:
    """1 for Chinese texts with a swear word or an insult, 0 for all others.

    The words are those of `glin-profanity`, about 300, found as whole words after `jieba` has cut
    the text: the list alone finds one in the words for milk and for "his mother". It knows words
    and nothing else; see `profanity_words`. For a judge of meaning train a classifier.

    Args:
        also: More words that count.

    Raises:
        MissingExtraError: `glin-profanity` or `jieba` is not installed.
    """
    jieba = quiet_jieba()
    for word in also:
        jieba.add_word(word)
    with optional(
        "glin-profanity",
        extra="safety",
        purpose="the list of Chinese swear words",
        instead="give a classifier of your own",
    ):
        import glin_profanity  # noqa: F401  (what is missing is found now)
    return partial(_classify_chinese, tuple(also))


def _classify_chinese(also: tuple[str, ...], texts: Sequence[str]) -> list[float]:
    return [float(any(_is_swear_word(part, also) for part in _parts(text))) for text in texts]


def _parts(text: str) -> Iterator[str]:
    """The words of a text, and two and three of them together: swear words may be cut too."""
    words = quiet_jieba().lcut(text)
    for begin in range(len(words)):
        for end in range(begin + 1, min(begin + 3, len(words)) + 1):
            yield "".join(words[begin:end])


@cache
def _is_swear_word(part: str, also: tuple[str, ...]) -> bool:
    """Whether it is in the list itself, not a part of it alone."""
    if part in EVERYDAY:
        return False
    return part in _chinese_filter(also).check_profanity(part)["profane_words"]


@cache
def _chinese_filter(also: tuple[str, ...]) -> Any:
    from glin_profanity import Filter

    return Filter({"languages": ["chinese"], "custom_words": list(also)})


def swear_words(texts: Sequence[str]) -> ToxicityClassifier:
    """The lists for the languages of `texts`: the English one, and the Chinese one where needed.

    Raises:
        MissingExtraError: A package that is needed is not installed.
    """
    lists = [profanity_words()]
    if any(_CHINESE.search(text) for text in texts):
        lists.append(chinese_profanity_words())
    return partial(_largest, tuple(lists))


_CHINESE = re.compile("[\u4e00-\u9fff]")


def _largest(lists: Sequence[ToxicityClassifier], texts: Sequence[str]) -> list[float]:
    return [max(scores) for scores in zip(*(one(texts) for one in lists), strict=True)]


def _classify(also: tuple[str, ...], texts: Sequence[str]) -> list[float]:
    return [float(_filter(also).is_profane(text)) for text in texts]


@cache
def _filter(also: tuple[str, ...]) -> Any:
    """The package's own object, which cannot be pickled."""
    from glin_profanity import Filter

    return Filter({"languages": ["english"], "custom_words": list(also)})


def toxicity_penalty(classifier: ToxicityClassifier, threshold: float = 0.0) -> EpisodeReward:
    """Minus what the classifier says of an answer; 0 where that is below `threshold`.

    A part for `textenv.rewards.weighted`:

        weighted(sentiment=(1.0, sentiment), safety=(2.0, toxicity_penalty(profanity_words())))
    """
    return shared(partial(_penalty, classifier, threshold), "toxicity_penalty")


def _penalty(
    classifier: ToxicityClassifier, threshold: float, episodes: Sequence[Episode]
) -> list[float]:
    scores = classifier([episode.text for episode in episodes])
    return [-float(score) if score >= threshold else 0.0 for score in scores]


def refuse_toxic(
    classifier: ToxicityClassifier, threshold: float = 0.5, refusal: str = REFUSAL
) -> Callable[[str], str]:
    """A function that gives a text back as it is, or `refusal` if it is toxic.

    >>> gentle = refuse_toxic(lambda texts: [float("damn" in text) for text in texts])
    >>> gentle("Hello."), gentle("damn it")
    ('Hello.', 'I would rather not say that.')
    """
    return partial(_refuse, classifier, threshold, refusal)


def _refuse(classifier: ToxicityClassifier, threshold: float, refusal: str, text: str) -> str:
    (score,) = classifier([text])
    return refusal if score >= threshold else text

"""A list of swear words and insults as a safety layer: a penalty in training, a refusal in chat.

A classifier is any function of n texts that gives n numbers from 0 to 1, higher is more toxic: a
network that gives probabilities, or the word list here, which gives 0 or 1. It takes many texts at
a time because most networks are a hundred times faster so.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

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

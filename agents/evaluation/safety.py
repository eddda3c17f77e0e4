"""A classifier of toxic text as a safety layer: a penalty in training, a refusal in chat.

A classifier is any function of n texts that gives n probabilities of being toxic: the one here, a
network, a list of words. It takes many texts at a time because most classifiers are a hundred
times faster so.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from textenv.episode import Episode
from textenv.errors import MissingExtraError
from textenv.rewards import EpisodeReward, shared

ToxicityClassifier: TypeAlias = Callable[[Sequence[str]], Sequence[float]]
"""A function of n texts: n probabilities of being toxic."""

REFUSAL = "I would rather not say that."


def profanity_classifier() -> ToxicityClassifier:
    """A linear classifier of English text by the words in it (`alt-profanity-check`).

    Trained on 200,000 comments that people had labelled; it knows words, not what is meant.

    Raises:
        MissingExtraError: The package `alt-profanity-check` is not installed.
    """
    try:
        from profanity_check import predict_prob
    except ImportError as error:
        raise MissingExtraError(
            f"the toxicity classifier needs the package alt-profanity-check ({error}): "
            'pip install "textenv[safety]", or give one of your own'
        ) from error

    def classify(texts: Sequence[str]) -> list[float]:
        return [float(p) for p in predict_prob(list(texts))] if texts else []

    return classify


def toxicity_penalty(classifier: ToxicityClassifier, threshold: float = 0.0) -> EpisodeReward:
    """Minus the probability that an answer is toxic; 0 where it is below `threshold`.

    A part for `textenv.rewards.weighted`:

        weighted(sentiment=(1.0, sentiment), safety=(2.0, toxicity_penalty(classifier)))
    """

    def penalty(episodes: Sequence[Episode]) -> list[float]:
        probabilities = classifier([episode.text for episode in episodes])
        return [-float(p) if p >= threshold else 0.0 for p in probabilities]

    return shared(penalty, "toxicity_penalty")


def refuse_toxic(
    classifier: ToxicityClassifier, threshold: float = 0.5, refusal: str = REFUSAL
) -> Callable[[str], str]:
    """A function that gives a text back as it is, or `refusal` if it is likely toxic.

    >>> gentle = refuse_toxic(lambda texts: [float("damn" in text) for text in texts])
    >>> gentle("Hello."), gentle("damn it")
    ('Hello.', 'I would rather not say that.')
    """

    def check(text: str) -> str:
        (probability,) = classifier([text])
        return refusal if probability >= threshold else text

    return check

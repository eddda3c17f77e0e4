"""Whether a reward model likes answers because they are long, and how to take that out of it.

People rank longer answers higher, and reward models learn this before anything else (Singhal et
al., "A Long Way to Go: Investigating Length Correlations in RLHF", 2023, arXiv:2310.03716). A
policy that is trained on such a model learns to be long. Only answers to one prompt are compared
here: questions that ask for more have longer answers, which is no bias.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.evaluation import Interval
from agents.feedback.rankings import Asked, Ranking, laid_flat
from policies.reward_model import RewardModel
from textenv.errors import PromptError
from textenv.frames import Frame
from textenv.tokenizers import Tokenizer, encode_answer

RESAMPLES = 2_000


class Scorer(Protocol):
    """What is examined: a reward model, an ensemble, or a classifier with a vocabulary."""

    @property
    def tokenizer(self) -> Tokenizer:
        """In whose tokens lengths are counted."""
        ...

    @property
    def frame(self) -> Frame | None:
        """What wraps messages; None if it reads texts as they are."""
        ...

    def score_texts(self, prompts: Sequence[Asked], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores of n answers, one to each prompt, shape (n,)."""
        ...


class LengthBias(NamedTuple):
    """How scores go with length among answers to one prompt; correlations are Pearson's.

    Attributes:
        of_scores: Correlation of the scores with the answers' tokens, and its 95% interval.
        of_ranks: The same for the rankings themselves: what the labellers prefer.
        slope: Score for each further token, by least squares.
    """

    of_scores: Interval
    of_ranks: Interval
    slope: float


def length_bias(model: Scorer, rankings: Sequence[Ranking], *, seed: int = 0) -> LengthBias:
    """Correlation of scores with length given the prompt, beside that of the ranks.

    Scores and lengths are taken less their means over the answers of each ranking, and correlated
    over all answers together. The bootstrap resamples rankings. A model whose correlation is far
    above that of the ranks has made more of length than the labellers did; on held-out rankings the
    two can be compared. NaN where all answers to every prompt have one length.

    Args:
        model: The model.
        rankings: At least one, such as those that were held out.
        seed: Seed of the bootstrap.

    Raises:
        PromptError: There are no rankings.
    """
    if not rankings:
        raise PromptError("there is no ranking to measure the bias of length on")
    lengths = _by_ranking(rankings, _lengths(model.tokenizer, rankings))
    scores = _by_ranking(rankings, _scores(model, rankings))
    ranks = _by_ranking(rankings, [-float(rank) for r in rankings for rank in r.ranks])
    return LengthBias(
        _correlation(scores, lengths, seed),
        _correlation(ranks, lengths, seed),
        _slope(scores, lengths),
    )


def remove_length(model: RewardModel, rankings: Sequence[Ranking]) -> float:
    """Take the part of the scores that is linear in length out of `model`; returns the slope.

    The slope is that of least squares within rankings, and the model keeps it
    (`RewardModel.length_slope`): from now on, a score is less by the slope for each token of the
    answer. A reward is seen as the true one plus a term of length, which is fitted after training:
    Huang et al., "Post-hoc Reward Calibration: A Case Study on Length Bias" (2024),
    arXiv:2409.17407; they fit a curve where this fits a line.

    What answers deserve for being longer goes with what they do not: use it where `length_bias`
    shows that length was preferred for its own sake. Call `normalise` afterwards.

    Args:
        model: Its scores change; its network does not.
        rankings: Those it has learned from, or others; scores need no labels.

    Raises:
        PromptError: All answers to every prompt have one length.
    """
    lengths = _by_ranking(rankings, _lengths(model.tokenizer, rankings))
    if not any(np.any(some) for some in lengths):
        raise PromptError(
            "no two answers to one prompt differ in length: there is no slope to remove"
        )
    slope = _slope(_by_ranking(rankings, _scores(model, rankings)), lengths)
    model.length_slope.add_(slope)
    return slope


def _scores(model: Scorer, rankings: Sequence[Ranking]) -> NDArray[np.float64]:
    """Scores of all answers, in their order."""
    return model.score_texts(*laid_flat(rankings, model.frame))


def _lengths(tokenizer: Tokenizer, rankings: Sequence[Ranking]) -> list[float]:
    """Tokens of all answers, in their order."""
    return [float(len(encode_answer(tokenizer, answer))) for r in rankings for answer in r.answers]


def _by_ranking(
    rankings: Sequence[Ranking], values: Sequence[float] | NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Values of all answers, as an array for each ranking, less its mean."""
    ends = np.cumsum([len(ranking.answers) for ranking in rankings])
    parts = np.split(np.asarray(values, dtype=np.float64), ends[:-1])
    return [part - part.mean() for part in parts]


def _slope(ys: Sequence[NDArray[np.float64]], xs: Sequence[NDArray[np.float64]]) -> float:
    """Least squares of centred y on centred x."""
    y, x = np.concatenate(ys), np.concatenate(xs)
    spread = float(x @ x)
    return float(x @ y) / spread if spread else float("nan")


def _correlation(
    ys: Sequence[NDArray[np.float64]], xs: Sequence[NDArray[np.float64]], seed: int
) -> Interval:
    """Pearson's correlation of centred values, with an interval over rankings."""
    sums = np.array([[x @ y, x @ x, y @ y] for x, y in zip(xs, ys, strict=True)])

    def of(total: NDArray[np.float64]) -> NDArray[np.float64]:
        xy, xx, yy = total.T
        with np.errstate(invalid="ignore", divide="ignore"):
            found: NDArray[np.float64] = xy / np.sqrt(xx * yy)
        return found

    rng = np.random.default_rng(seed)
    # How often each ranking is drawn: the same as drawing them, in one product.
    counts = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    resampled = of(counts @ sums)
    known = resampled[~np.isnan(resampled)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Interval(float(of(sums.sum(0)[None])[0]), float(low), float(high))

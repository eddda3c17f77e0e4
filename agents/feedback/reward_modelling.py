"""Training a reward model on ranked answers, and measuring how far to trust it on others."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.distribution.shares import in_shares
from agents.evaluation import Interval, bootstrap_interval
from agents.feedback.length import Scorer
from agents.feedback.rankings import Asked, Ranking, for_frame, laid_flat
from agents.feedback.reward_losses import RankingLoss, kwise
from agents.preference_losses import ranked_pairs
from agents.supervised.fitting import FitOptions, FitStep, Fitting
from agents.supervised.sft import batches, steps_of
from policies.reward_model import RewardModel
from textenv.errors import PromptError

NO_PAIRS = "no ranking says that one answer is better than another"

# -------------------------------------------------------------------- training


@dataclass(frozen=True)
class RewardModelStep(FitStep):
    """What one optimiser step did.

    Attributes:
        accuracy: Share of the step's pairs that the model ordered rightly before the step.
    """

    accuracy: float


def reward_model_steps(
    model: RewardModel,
    rankings: Sequence[Ranking],
    *,
    loss: RankingLoss = kwise,
    epochs: int = 1,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    seed: int = 0,
    fitting: Fitting | None = None,
    **options: Unpack[FitOptions],
) -> Iterator[RewardModelStep]:
    """Fit `model` to `rankings`, one optimiser step at a time.

    All answers to a prompt are in one batch, which reads the prompt once. Ouyang et al. (2022)
    train for one epoch, since a second one overfits. `model.mean` stays as it is: see `normalise`.

    Args:
        model: The model to train, head and trunk.
        rankings: The data; rankings of nothing but ties teach nothing and are left out.
        loss: One of `agents.feedback.reward_losses`, or another function like these.
        epochs: Passes over all rankings, each in another order.
        batch_size: Prompts of an optimiser step.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        seed: Seed of the order, and of what is dropped.
        fitting: A `Fitting` of your own, to save its state or to continue with a loaded one; it
            takes the place of the rates and the options.
        **options: Optimiser, schedule, warm-up, clipping, number type, dropout; see
            `agents.supervised.Fitting`.

    Raises:
        PromptError: No ranking says that one answer is better than another.
        UnframedError: There are messages, and the model has no template.
    """
    rankings = with_pairs(rankings)
    read = for_frame(rankings, model.frame)
    rows = [model.encode([r.asked] * len(r.answers), r.answers) for r in read]
    fitting = fitting or Fitting(
        model,
        steps=steps_of(len(rankings), epochs, batch_size),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        **options,
    )
    device = model.trunk.device
    # A batch holds whole rankings: the loss compares answers to one prompt, and each prompt is read
    # once. Ouyang et al. found that pairs of one prompt in different batches overfit.
    for batch in islice(batches(len(rankings), epochs, batch_size, seed), fitting.done, None):
        with fitting.computing():
            scores = _scores(model, model.pad([ids for i in batch for ids in rows[i]]))
        ranks = torch.tensor([rank for i in batch for rank in rankings[i].ranks], device=device)
        # The group is the ranking, not the prompt: two people's ranks do not compare.
        groups = torch.tensor([i for i in batch for _ in rows[i]], device=device)
        step = fitting.step([loss(scores, ranks, groups)])
        better, worse = ranked_pairs(-ranks, groups)
        right = (scores[better] > scores[worse]).float().mean().item()
        yield RewardModelStep(**asdict(step), accuracy=right)


def with_pairs(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The rankings that say that one answer is better than another.

    Raises:
        PromptError: There is none.
    """
    found = [ranking for ranking in rankings if len(set(ranking.ranks)) > 1]
    if not found:
        raise PromptError(NO_PAIRS)
    return found


def _scores(model: RewardModel, tokens: Tensor) -> Tensor:
    """`model.score_tokens`, of several processes each reading its share of the rows."""
    read = (tokens != model.trunk.pad_token).sum(1)
    return in_shares(lambda rows: model.score_tokens(tokens[rows]), read)


def normalise(model: RewardModel, prompts: Sequence[Asked], answers: Sequence[str]) -> None:
    """Shift the model's scores so that their mean over these answers, one for each prompt, is 0.

    Rankings do not say where the scores' zero is. Ouyang et al. (2022) put it at the mean of the
    demonstrations before PPO.

    Raises:
        PromptError: There is no answer.
    """
    if not prompts:
        raise PromptError("there is no answer whose mean score could become 0")
    model.mean.add_(float(model.score_texts(prompts, answers).mean()))


def standardise(model: RewardModel, prompts: Sequence[Asked], answers: Sequence[str]) -> None:
    """Shift and scale the scores so that over these answers their mean is 0, their deviation 1.

    Models of different size, data or length of training give scores of different scale. Without
    this, the spread of an ensemble of such models would be that of their scales. sigmoid of a
    difference of scores is then no longer a probability; see `calibration`.

    Raises:
        PromptError: There is no answer, or all of them score the same.
    """
    normalise(model, prompts, answers)
    deviation = float(model.score_texts(prompts, answers).std())
    if deviation < 1e-6:
        raise PromptError(
            f"the scores of these {len(answers)} answers differ by {deviation:.1g}: they cannot be "
            "scaled to a deviation of 1; give answers that the model tells apart"
        )
    head = model.trunk.value_head
    with torch.no_grad():
        for number in (head.weight, head.bias, model.mean, model.length_slope):
            number.div_(deviation)


def split_rankings(
    rankings: Sequence[Ranking], share: float, seed: int = 0
) -> tuple[list[Ranking], list[Ranking]]:
    """Training and held-out rankings; no prompt is in both.

    Args:
        rankings: Rankings of at least two different prompts.
        share: Share of the prompts to hold out, above 0 and below 1; at least one is held out.
        seed: Seed of the choice.

    Raises:
        PromptError: There are fewer than two prompts, or `share` is out of its range.
    """
    # By prompt, not by ranking: a prompt seen in training would flatter the held-out accuracy.
    prompts = list(dict.fromkeys(ranking.prompt for ranking in rankings))
    if len(prompts) < 2 or not 0 < share < 1:
        raise PromptError(
            f"a share of {share} of {len(prompts)} prompts cannot be held out: two prompts are "
            "needed, and a share above 0 and below 1"
        )
    count = min(max(round(share * len(prompts)), 1), len(prompts) - 1)
    chosen = np.random.default_rng(seed).permutation(len(prompts))[:count]
    kept = {prompts[i] for i in chosen}
    held_out = [ranking for ranking in rankings if ranking.prompt in kept]
    return [ranking for ranking in rankings if ranking.prompt not in kept], held_out


# -------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs that the model is about equally sure of.

    Attributes:
        low: Lowest probability of the bin.
        high: Upper bound of the bin's probabilities.
        pairs: Number of pairs in the bin.
        predicted: Mean probability that the model gives to the answer it prefers; NaN if empty.
        observed: Share of pairs in which that answer is the better one; NaN if empty.
    """

    low: float
    high: float
    pairs: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Calibration:
    """Whether the model is right about a share p of the pairs that it gives a probability of p.

    Attributes:
        bins: The bins, from a probability of 1/2 to 1.
        error: Expected calibration error: the mean over pairs of |predicted - observed| of the
            bin (Guo et al., "On Calibration of Modern Neural Networks", 2017).
    """

    bins: tuple[CalibrationBin, ...]
    error: float


def pair_accuracy(model: Scorer, rankings: Sequence[Ranking]) -> Interval:
    """Share of pairs that the model has in the right order, and its interval.

    The share is taken for each prompt and averaged over prompts. The pairs of a prompt are not
    independent, so the bootstrap resamples prompts. Equal scores count half. Rankings of nothing
    but ties are left out.

    Raises:
        PromptError: There are no pairs.
    """
    by_prompt: dict[str, list[NDArray[np.float64]]] = {}
    for ranking, margins in zip(rankings, _margins(model, rankings), strict=True):
        if len(margins):
            right = (margins > 0) + 0.5 * (margins == 0)
            by_prompt.setdefault(ranking.prompt, []).append(right)
    if not by_prompt:
        raise PromptError(NO_PAIRS)
    return bootstrap_interval([np.concatenate(right).mean() for right in by_prompt.values()])


def calibration(model: Scorer, rankings: Sequence[Ranking], bins: int = 5) -> Calibration:
    """Compare sigmoid(difference of scores) with how often the model is right, pair by pair.

    Raises:
        PromptError: There are no pairs.
    """
    margins = np.concatenate([np.zeros(0), *_margins(model, rankings)])
    if not len(margins):
        raise PromptError(NO_PAIRS)
    # The absolute margin: how sure the model is of the answer it prefers, so 1/2 or more.
    sure = 1 / (1 + np.exp(-np.abs(margins)))
    right = (margins > 0) + 0.5 * (margins == 0)
    edges = np.linspace(0.5, 1, bins + 1)
    # The clip puts a probability of exactly 1 into the last bin.
    of_pair = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    table, error = [], 0.0
    for number in range(bins):
        inside = of_pair == number
        count = int(inside.sum())
        predicted = float(sure[inside].mean()) if count else math.nan
        observed = float(right[inside].mean()) if count else math.nan
        if count:
            error += count / len(margins) * abs(predicted - observed)
        low, high = float(edges[number]), float(edges[number + 1])
        table.append(CalibrationBin(low, high, count, predicted, observed))
    return Calibration(tuple(table), error)


def _margins(model: Scorer, rankings: Sequence[Ranking]) -> list[NDArray[np.float64]]:
    """For each ranking the score of the better answer less that of the worse, pair by pair."""
    # One call for all answers, so that the model reads them in full batches.
    scores = model.score_texts(*laid_flat(rankings, model.frame))
    ends = np.cumsum([len(ranking.answers) for ranking in rankings])
    margins = []
    for ranking, some in zip(rankings, np.split(scores, ends[:-1]), strict=True):
        ranks = np.array(ranking.ranks)
        better, worse = np.nonzero(ranks[:, None] < ranks)
        margins.append(some[better] - some[worse])
    return margins

"""Several reward models as one reward that is lowered where they disagree.

Models that were fitted to the same rankings from different random heads and orders agree on answers
like those in the rankings. A policy that exploits the mistakes of one leads to answers on which
they part, so their spread says where scores are not to be trusted: Coste et al., "Reward Model
Ensembles Help Mitigate Overoptimization" (2023), arXiv:2310.02743.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from policies.policy import Policy
from policies.reward_model import RewardModel
from textenv.episode import Episode
from textenv.errors import CheckpointError, InvalidRewardError
from textenv.files import reason
from textenv.frames import Frame, Message
from textenv.rewards import RewardTerm, Weighted
from textenv.tokenizers import Tokenizer

MEMBERS = "ensemble.json"
"""Names the folders of the members, which lie beside it."""

Combine: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Scores (members, n) of n answers to one score each, (n,)."""


@dataclass(frozen=True)
class MeanLessSpread:
    """The mean of the members less `penalty` times their standard deviation.

    Coste et al. subtract the variance, which is `MeanLessVariance`. The standard deviation has the
    unit of the scores, so the penalty keeps its meaning when all scores are scaled.

    Attributes:
        penalty: 0 is the mean alone; with two members, 1 is the lower score of the two.
    """

    penalty: float = 1.0

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (members, n) to (n,)."""
        combined: NDArray[np.float64] = scores.mean(0) - self.penalty * scores.std(0)
        return combined


@dataclass(frozen=True)
class MeanLessVariance:
    """Uncertainty-weighted optimisation: the mean less `penalty` times the variance.

    Equation 2 of Coste et al. (2023), with the variance of the members at hand (divided by k).

    Attributes:
        penalty: Their lambda; they take 0.1 or 0.5.
    """

    penalty: float = 0.5

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (members, n) to (n,)."""
        combined: NDArray[np.float64] = scores.mean(0) - self.penalty * scores.var(0)
        return combined


def worst_case(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest score that any member gives, (members, n) to (n,); it has nothing to tune."""
    lowest: NDArray[np.float64] = scores.min(0)
    return lowest


class RewardModelEnsemble(Weighted):
    """Reward models as one reward, for training, evaluation and best-of-n.

    Where an environment takes it, infos and metrics report three numbers: `reward_model`, which is
    paid; `mean` of the members; and `spread`, their standard deviation. A spread that grows as
    training goes on says that the policy leaves the answers that the rankings were about.

    A score's zero has no meaning in rankings, so members must have it at the same answers: call
    `agents.feedback.normalise` on each with the same ones, as `textenv reward-model` does.

    Args:
        models: At least two.
        combine: `MeanLessSpread()`, `MeanLessVariance()`, `worst_case`, or a function of your own.

    Attributes:
        models: The same.
        combine: The same.

    Raises:
        InvalidRewardError: There are fewer than two models.
    """

    def __init__(self, models: Iterable[RewardModel], combine: Combine | None = None):
        self.models = tuple(models)
        if len(self.models) < 2:
            raise InvalidRewardError(
                f"an ensemble of {len(self.models)} reward models has no spread: give two or more, "
                "or use the one by itself"
            )
        self.combine: Combine = MeanLessSpread() if combine is None else combine
        self._kept: tuple[Sequence[Episode], NDArray[np.float64]] | None = None
        super().__init__(
            [
                RewardTerm("reward_model", 1.0, self._paid, dense=False),
                RewardTerm("mean", 0.0, self._mean, dense=False),
                RewardTerm("spread", 0.0, self._spread, dense=False),
            ]
        )

    def __repr__(self) -> str:
        return f"RewardModelEnsemble({len(self.models)} models, {self.combine})"

    # ---------------------------------------------------------------- scores

    def member_scores(
        self, prompts: Sequence[str | Sequence[Message]], answers: Sequence[str]
    ) -> NDArray[np.float64]:
        """What each member says of n answers, one to each prompt, shape (members, n)."""
        return np.stack([model.score_texts(prompts, answers) for model in self.models])

    def score_texts(
        self, prompts: Sequence[str | Sequence[Message]], answers: Sequence[str]
    ) -> NDArray[np.float64]:
        """Combined scores of n answers, one to each prompt, shape (n,)."""
        return self.combine(self.member_scores(prompts, answers))

    def __call__(self, episodes: Sequence[Episode]) -> list[float]:
        """Combined scores of finished episodes."""
        return self._paid(episodes).tolist()

    def _paid(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        scores = np.array([model(episodes) for model in self.models])
        # The terms of a reward are called on the same list one after the other. It is kept for
        # them, by identity, so that every member reads it once.
        self._kept = (episodes, scores)
        return self.combine(scores)

    def _mean(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = self._scored(episodes).mean(0)
        return mean

    def _spread(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        spread: NDArray[np.float64] = self._scored(episodes).std(0)
        self._kept = None  # the last term has been told
        return spread

    def _scored(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        if self._kept is None or self._kept[0] is not episodes:
            self._paid(episodes)
        assert self._kept is not None
        return self._kept[1]

    # ---------------------------------------------------------------- as the models it is made of

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the first member, whose copy a critic begins as."""
        return self.models[0].tokenizer

    @property
    def frame(self) -> Frame | None:
        """What wraps messages for the first member, as for all that began as one policy."""
        return self.models[0].frame

    def as_critic(self) -> Policy:
        """A critic that begins as the first member; see `RewardModel.as_critic`."""
        return self.models[0].as_critic()

    def to(self, device: torch.device | str) -> Self:
        """Move all members."""
        for model in self.models:
            model.to(device)
        return self

    # ---------------------------------------------------------------- on disk

    def save(self, folder: str | Path) -> Path:
        """Write each member into a folder of its own in `folder`; `combine` is not kept."""
        folder = Path(folder)
        names = [f"member-{number}" for number in range(1, len(self.models) + 1)]
        for name, model in zip(names, self.models, strict=True):
            model.save(folder / name)
        (folder / MEMBERS).write_text(json.dumps({"members": names}, indent=2), encoding="utf-8")
        return folder


def load_reward_model(
    folders: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer | None = None,
    combine: Combine | None = None,
) -> RewardModel | RewardModelEnsemble:
    """The reward model of a folder, or the ensemble of several or of one that holds several.

    Args:
        folders: One folder or several.
        tokenizer: See `RewardModel.load`.
        combine: How members are combined; see `RewardModelEnsemble`.

    Raises:
        CheckpointError: Files are missing or damaged.
        VocabularyMismatchError: A model was made with another vocabulary.
    """
    if isinstance(folders, str | Path):
        folders = [folders]
    every = [member for folder in folders for member in _members(Path(folder))]
    models = [RewardModel.load(folder, tokenizer) for folder in every]
    return models[0] if len(models) == 1 else RewardModelEnsemble(models, combine)


def _members(folder: Path) -> list[Path]:
    """The folders of the members; the folder itself if it holds one model."""
    if not (folder / MEMBERS).exists():
        return [folder]
    try:
        names = json.loads((folder / MEMBERS).read_text(encoding="utf-8"))["members"]
        return [folder / str(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / MEMBERS} cannot be read: {reason(error)}; it should name the folders of "
            'the members, such as {"members": ["member-1", "member-2"]}'
        ) from error

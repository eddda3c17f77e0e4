"""How episodes ended: by what, after how many tokens, and what each part of the reward paid."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.rollout import Rollout
from textenv.conversations import ERROR
from textenv.episode import LENGTH

COMPONENT = "component."
"""Before the name of a component of the reward, in `Rollout.endings` and in the logged numbers."""


def ending_of(ends: Mapping[str, Any], row: int) -> dict[str, float]:
    """Whether the budget ended an episode, and what each component of its reward paid.

    Args:
        ends: Infos of the step at which it ended, in the form of Gymnasium's vector environments.
        row: Row of the episode among the environments.

    Returns:
        `by_budget` if the environment tells a `finish_reason`, `failed` if the world failed, and
        each component under its name. A single component is the score itself and is left out.
    """
    ending = {}
    reasons, told = ends.get("finish_reason"), ends.get("_finish_reason")
    if reasons is not None and (told is None or told[row]):
        ending["by_budget"] = float(reasons[row] == LENGTH)
        if reasons[row] == ERROR:
            ending["failed"] = 1.0
    components = ends.get("reward_components")
    if isinstance(components, Mapping) and len(components) > 2:  # each with its mask
        for name, values in components.items():
            told = components.get(f"_{name}")
            if told is not None and told[row]:
                ending[COMPONENT + name] = float(values[row])
    return ending


def is_scored(ends: Mapping[str, Any], row: int) -> bool:
    """Whether an episode has a score; the arguments are those of `ending_of`.

    Only an environment whose reward may abstain tells. Its reward for the others is 0, and means
    nothing.
    """
    scored, told = ends.get("scored"), ends.get("_scored")
    return scored is None or bool(scored[row]) or (told is not None and not told[row])


def together(endings: list[dict[str, float]]) -> dict[str, Tensor]:
    """One array for each name, one entry for each episode, NaN where it lacks the name."""
    names = dict.fromkeys(name for ending in endings for name in ending)
    return {
        name: torch.tensor([e.get(name, float("nan")) for e in endings], dtype=torch.float64)
        for name in names
    }


class Played(NamedTuple):
    """Tokens that were chosen, and the E episodes that ended with them.

    Attributes:
        tokens: Chosen tokens, those of running episodes included.
        scores: Score of each episode that ended, shape (E,); NaN without a score.
        endings: What else is known of each episode, as in `Rollout.endings`, shape (E,).
    """

    tokens: int
    scores: Tensor
    endings: dict[str, Tensor]

    @classmethod
    def of(cls, rollout: Rollout) -> Self:
        """The tokens and the ended episodes of a rollout."""
        over = rollout.finished
        endings = {name: values[over].cpu() for name, values in (rollout.endings or {}).items()}
        return cls(rollout.num_tokens, rollout.scores[over].cpu(), endings)


class Summary(NamedTuple):
    """The fields of an `Update` that say how its episodes ended; NaN where nothing is known."""

    score: float
    score_std: float
    tokens_per_answer: float
    ended_by_budget: float
    components: dict[str, float]
    scores: NDArray[np.float32]


def summarise(played: Sequence[Played]) -> Summary:
    """Means over all episodes that ended in any of the rollouts of an update.

    Episodes without a score count in the lengths alone.
    """
    ended = torch.cat([part.scores for part in played])
    scores = ended[~ended.isnan()]
    names = dict.fromkeys(name for part in played for name in part.endings)
    means = {
        name: _mean(torch.cat([p.endings[name] for p in played if name in p.endings]))
        for name in names
    }
    return Summary(
        score=scores.mean().item(),
        score_std=scores.std(correction=0).item() if len(scores) else float("nan"),
        tokens_per_answer=means.get("tokens", float("nan")),
        ended_by_budget=means.get("by_budget", float("nan")),
        components={
            name.removeprefix(COMPONENT): mean
            for name, mean in means.items()
            if name.startswith(COMPONENT) and not np.isnan(mean)
        },
        scores=scores.float().numpy(),
    )


def _mean(values: Tensor) -> float:
    return values.nanmean().item()

"""The reward model, or the ensemble, that the options of a command name."""

from agents.commands.shared import RewardModels
from agents.jobs.machine import device_named
from policies import (
    MeanLessSpread,
    MeanLessVariance,
    RewardModel,
    RewardModelEnsemble,
    load_reward_model,
    worst_case,
)
from policies.reward_ensemble import Combine


def reward_model_of(options: RewardModels, device: str) -> RewardModel | RewardModelEnsemble | None:
    """What `--reward-model` names; None if it was not given.

    Raises:
        CheckpointError: A folder holds no reward model.
    """
    if not options.reward_model:
        return None
    penalty = options.spread_penalty
    combines: dict[str, Combine] = {
        "less-spread": MeanLessSpread(penalty),
        "less-variance": MeanLessVariance(penalty),
        "worst": worst_case,
    }
    model = load_reward_model(options.reward_model, combine=combines[options.combine])
    return model.to(device_named(device))

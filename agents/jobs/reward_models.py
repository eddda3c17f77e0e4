"""The reward model, or the ensemble, that the options of a command name."""

from agents.commands.shared import RewardModels
from agents.jobs.classifiers import label_score
from agents.jobs.machine import device_named
from policies import (
    LabelScore,
    MeanLessSpread,
    MeanLessVariance,
    RewardModel,
    RewardModelEnsemble,
    load_reward_model,
    worst_case,
)
from policies.reward_ensemble import Combine
from policies.text_classifier import is_classifier
from textenv.errors import OptionError


def reward_model_of(
    options: RewardModels, device: str
) -> RewardModel | RewardModelEnsemble | LabelScore | None:
    """What `--reward-model` names; None if it was not given.

    Raises:
        CheckpointError: A folder holds no reward model.
        OptionError: A classifier stands beside other models, or a label without one.
    """
    if not options.reward_model:
        return None
    if any(map(is_classifier, options.reward_model)):
        if len(options.reward_model) > 1:
            raise OptionError(
                f"--reward-model {' '.join(options.reward_model)}: a classifier is no member of an "
                "ensemble; give it alone"
            )
        return label_score(options.reward_model[0], options.label, device)
    if options.label is not None:
        raise OptionError(
            f"--label {options.label} belongs to a classifier, and {options.reward_model[0]} holds "
            "a reward model: leave it out"
        )
    penalty = options.spread_penalty
    combines: dict[str, Combine] = {
        "less-spread": MeanLessSpread(penalty),
        "less-variance": MeanLessVariance(penalty),
        "worst": worst_case,
    }
    model = load_reward_model(options.reward_model, combine=combines[options.combine])
    return model.to(device_named(device))

"""The numbers of a run: their names, their tags in dashboards, their units and what they mean.

The table of docs/metrics.md holds the same rows; a test compares them.
"""

import math
from dataclasses import dataclass

from agents.runs.endings import COMPONENT
from agents.runs.update import Update


@dataclass(frozen=True)
class Metric:
    """A number that a run reports.

    Attributes:
        name: Its name in `numbers`, in `metrics.csv` and on the terminal.
        tag: Its name in TensorBoard and the like, which group tags by what stands before the slash.
        unit: Its unit; empty for a share and for a number without a unit.
        meaning: What it is, in a phrase.
    """

    name: str
    tag: str
    unit: str
    meaning: str


EVALUATION = "evaluation_score"

METRICS = (
    Metric("score", "score/mean", "score", "mean score of the answers that ended"),
    Metric("score_std", "score/std", "score", "standard deviation of those scores"),
    Metric(EVALUATION, "score/evaluation", "score", "mean score of an evaluation in between"),
    Metric("tokens_per_answer", "answers/tokens", "tokens", "mean length of those answers"),
    Metric("ended_by_budget", "answers/ended_by_budget", "", "share of them the budget ended"),
    Metric("failed_worlds", "answers/failed_worlds", "", "episodes whose world failed"),
    Metric("kl", "policy/kl", "nats/token", "KL to the reference, estimator k1"),
    Metric("kl_coef", "policy/kl_coef", "score/nat", "weight of the KL penalty"),
    Metric("entropy", "policy/entropy", "nats", "mean entropy of the choices"),
    Metric("approx_kl", "policy/approx_kl", "nats/token", "how far this update moved the policy"),
    Metric("clip_fraction", "policy/clip_fraction", "", "share of the tokens beyond the clip"),
    Metric("capped_fraction", "policy/capped_fraction", "", "share of the tokens at the cap"),
    Metric("importance_weight", "policy/importance_weight", "", "mean weight of the tokens"),
    Metric("step_kl", "policy/step_kl", "nats/token", "KL of TRPO's step"),
    Metric("halvings", "policy/halvings", "", "how often TRPO halved its step; -1: no step"),
    Metric("loss", "loss/total", "", "what the optimiser minimised"),
    Metric("policy_loss", "loss/policy", "", "the policy's part of it"),
    Metric("value_loss", "loss/value", "score²", "squared error of the values, halved"),
    Metric("ptx_loss", "loss/ptx", "nats/token", "loss on the pretraining text"),
    Metric("divergence", "loss/divergence", "nats/token", "from the teacher, on own answers"),
    Metric("data_divergence", "loss/data_divergence", "nats/token", "the same, on others' answers"),
    Metric("pair_accuracy", "preferences/pair_accuracy", "", "share of the pairs ranked rightly"),
    Metric("margin", "preferences/margin", "nats", "lead of the better answer of a pair"),
    Metric("reference_point", "preferences/reference_point", "nats", "KTO's reference point"),
    Metric("explained_variance", "values/explained_variance", "", "what the values predict"),
    Metric("grad_norm", "optimiser/grad_norm", "", "norm of the gradient before clipping"),
    Metric("learning_rate", "optimiser/learning_rate", "", "used in this update"),
    Metric("rollout_seconds", "time/rollout", "seconds", "for the answers and their scores"),
    Metric("reference_seconds", "time/reference", "seconds", "for the reference's pass"),
    Metric("waiting_seconds", "time/waiting", "seconds", "for workers, within the rollout"),
    Metric("weights_age", "workers/weights_age", "updates", "how old the sampling weights were"),
    Metric("replaced_workers", "workers/replaced", "", "workers that died and were replaced"),
    Metric("proximal_seconds", "time/proximal", "seconds", "for the pass before the updates"),
    Metric("update_seconds", "time/update", "seconds", "for the optimiser steps"),
    Metric("rollout_encoded_tokens", "encoded/rollout", "tokens", "read by the network to sample"),
    Metric("update_encoded_tokens", "encoded/update", "tokens", "read by the network to learn"),
    Metric("tokens_per_second", "time/tokens_per_second", "tokens/s", "over the whole update"),
    Metric("update", "progress/update", "", "updates so far"),
    Metric("episodes", "progress/episodes", "", "answers that ended so far"),
)
"""All numbers that the learner and the algorithms of this library report."""

_TAGS = {metric.name: metric.tag for metric in METRICS}


def tag_of(name: str) -> str:
    """The tag of a number: its group, a slash, its name in the group.

    Components of the reward have a group of their own. Numbers that are not known here, such as
    those of an algorithm of yours, are grouped as `other`.

    >>> tag_of("kl"), tag_of("component.length"), tag_of("surprise")
    ('policy/kl', 'component/length', 'other/surprise')
    """
    if name.startswith(COMPONENT):
        return "component/" + name.removeprefix(COMPONENT)
    return _TAGS.get(name, f"other/{name}")


def numbers(update: Update) -> dict[str, float]:
    """All numbers of an update by name, for loggers.

    What was not measured (NaN), such as the score of an update in which no answer ended, is left
    out. Any other NaN stays: it is a fault that should be seen.
    """
    measured = {
        "score": update.score,
        "score_std": update.score_std,
        "tokens_per_answer": update.tokens_per_answer,
        "ended_by_budget": update.ended_by_budget,
        "kl": math.nan if update.kl is None else update.kl,
        **{COMPONENT + name: mean for name, mean in update.components.items()},
    }
    return {
        "update": update.number,
        "episodes": update.episodes,
        **{name: value for name, value in measured.items() if not math.isnan(value)},
        "entropy": update.entropy,
        "tokens_per_second": update.tokens_per_second,
        **update.metrics,
    }

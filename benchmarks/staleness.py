"""Rollouts of older weights on the task whose best policy is known: what the correction is worth.

The task and the settings are those of `benchmarks.exact`: 40 answers, a KL leash of `BETA`, the
total variation to the best policy in the end. Rollouts come from workers that are some updates
ahead (`agents.remote.LocalCollectors`, which gives what `RayCollectors` does), so that their
weights are that many updates old. Beside the correction of `importance_cap` (the decoupled
objective and truncated ratios) stand two ways without it: `sampler` takes the sampler's
log-probabilities for the old ones, so the clip is around the policy that sampled; `none` takes the
tokens for the present policy's own.

Run: taskset -c 0 python -m benchmarks.staleness --threads 1
"""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from agents import Learner, Rollout
from agents.remote import LocalCollectors
from benchmarks.common import command_line, report
from benchmarks.exact import BETA, GROUP, LEASHED, OPTIONS, make_policy, outcome
from textenv import TextVectorEnv

TARGET = 0.05
"""Total variation to be reached."""


class BySampler(Learner):
    """Learns from old rollouts as if they were new: the ratio is that to the sampler."""

    def with_proximal(self, rollout: Rollout) -> Rollout:
        """The rollout as it was sampled."""
        return rollout


class Uncorrected(Learner):
    """Takes the tokens of old weights for the present policy's own."""

    def with_proximal(self, rollout: Rollout) -> Rollout:
        """The present log-probabilities, and no weight."""
        return replace(super().with_proximal(rollout), importance_weights=None)


WAYS: Mapping[str, type[Learner]] = {
    "corrected": Learner,
    "sampler": BySampler,
    "none": Uncorrected,
}


def train(name: str, way: str, staleness: int, seed: int, cap: float) -> dict[str, float]:
    """Distance to the best policy after a training, and the mean share of capped weights."""
    setting, policy = LEASHED[name], make_policy(seed)
    learner = WAYS[way](
        policy,
        TextVectorEnv(setting.answers, group_size=GROUP, **OPTIONS),
        setting.algorithm,
        reference=policy.frozen_copy(),
        kl_coef=setting.kl_coef,
        learning_rate=setting.rate,
        n_episodes=setting.answers,
        seed=seed,
        importance_cap=cap,
        collector=partial(LocalCollectors, workers=2, staleness=staleness),
    )
    capped = []
    for number in range(setting.updates):
        update = learner.update(number / setting.updates)
        capped.append(update.metrics.get("capped_fraction", 0.0))
    return {
        "distance": outcome(name, policy, seed).total_variation,
        "capped": statistics.mean(capped),
    }


def row(name: str, way: str, staleness: int, seeds: list[int], cap: float) -> dict[str, Any]:
    """The distances over seeds."""
    runs = [train(name, way, staleness, seed, cap) for seed in seeds]
    distances = [run["distance"] for run in runs]
    return {
        "algorithm": name,
        "staleness": staleness,
        "correction": way,
        "mean": f"{statistics.mean(distances):.3f}",
        "worst": f"{max(distances):.3f}",
        "target": f"{TARGET:.2f}",
        "capped": f"{statistics.mean(run['capped'] for run in runs):.3f}",
        "seeds": len(seeds),
    }


def main() -> None:
    """A table over algorithms, staleness and ways."""
    parser = command_line(__doc__)
    parser.add_argument("--algorithms", nargs="+", choices=LEASHED, default=["PPO", "GRPO", "RLOO"])
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--cap", type=float, default=2.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = (
        row(name, way, staleness, arguments.seeds, arguments.cap)
        for name in arguments.algorithms
        for staleness in arguments.staleness
        for way in (arguments.ways if staleness else ["corrected"])
    )
    report(f"older weights, KL leash of {BETA}", rows, seeds=arguments.seeds, cap=arguments.cap)


if __name__ == "__main__":
    main()

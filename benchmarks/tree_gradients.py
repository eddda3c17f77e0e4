"""How much of an update's gradient is signal: a value head, continuations, trees of answers.

Many rollouts of 128 answers to new problems of `benchmarks.arithmetic_task`, all by one fine-tuned
policy, each with its policy gradient as the algorithm would take its first step. Their mean is the
signal and their spread the noise, |signal|^2 less what the noise adds to it. Where noise is what
limits training, updates to a score go down as the ratio goes up. `PPO` has lambda 1 and a value
head that knows nothing yet: after standardisation its baseline is the mean. `more answers` is what
PPO would have with the same chosen tokens spent on answers, as noise falls with their number.

Run: taskset -c 0 python -m benchmarks.tree_gradients --threads 1
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from agents import PPO, Learner, TreePO, VinePPO, returns
from agents.algorithm import Algorithm
from benchmarks import arithmetic_task as task
from benchmarks.common import command_line, report
from policies import Policy

ROWS, STEP_TOKENS = 128, 3
ALGORITHMS: dict[str, Algorithm] = {
    "PPO": PPO(gae_lambda=1.0),
    "VinePPO, k = 4": VinePPO(continuations=4, step_tokens=STEP_TOKENS),
    "TreePO": TreePO(segment_tokens=STEP_TOKENS),
    "TreePO by changes": TreePO(segment_tokens=STEP_TOKENS, credit="tree_changes"),
}


def gradient(policy: Policy, algorithm: Algorithm, steps: int, seed: int) -> tuple[Tensor, int]:
    """The policy's gradient of one rollout, flat, and the tokens that were chosen for it."""
    envs = task.environment(task.problems(ROWS, steps, seed), steps, ROWS)
    learner = Learner(policy, envs, algorithm, n_episodes=ROWS, seed=seed)
    rollout = learner.collect()
    rollout = replace(rollout, advantages=algorithm.advantages(rollout))
    outputs = policy.outputs(rollout.tokens, rollout.mask)
    if isinstance(algorithm, PPO):  # without the loss of the values
        assert rollout.advantages is not None
        advantages = returns.standardise(rollout.advantages, rollout.mask)
        loss = algorithm.policy_loss(rollout, outputs, advantages)
    else:
        loss, _ = algorithm.loss(rollout, outputs)  # type: ignore[misc]
    named = policy.named_parameters()
    of = [parameter for name, parameter in named if "value_head" not in name]
    flat = torch.cat([part.flatten() for part in torch.autograd.grad(loss, of)])
    return flat, sum(part.tokens for part in learner._played)


def measure(arguments: Any) -> Iterator[dict[str, Any]]:
    """Rows of the table: an algorithm on problems of one length."""
    for steps in arguments.steps:
        policy, ppo = task.fine_tuned(steps, 0), (1.0, 1.0)
        for name, algorithm in ALGORITHMS.items():
            drawn = [gradient(policy, algorithm, steps, n) for n in range(arguments.rollouts)]
            gradients = torch.stack([flat for flat, _ in drawn])
            tokens = sum(count for _, count in drawn) / len(drawn)
            noise = gradients.var(0).sum().item()
            signal = gradients.mean(0).square().sum().item() - noise / len(drawn)
            if name == "PPO":
                ppo = signal / noise, tokens
            yield {
                "steps": steps,
                "algorithm": name,
                "chosen tokens": tokens,
                "signal / noise": signal / noise,
                "of PPO's": signal / noise / ppo[0],
                "more answers": tokens / ppo[1],
            }


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rollouts", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report("tree_gradients", measure(arguments), rollouts=arguments.rollouts)


if __name__ == "__main__":
    main()

"""Values from continuations, trees of answers and a value head, to the same score.

The task is `benchmarks.arithmetic_task`: chains of 2, 4 or 8 operations, each written as three
tokens, after a little fine-tuning that makes about 0.4 of the sampled answers right. `PPO` has a
value head that begins at zero, `VinePPO` plays 4 continuations from the beginning of each operation
(three tokens), `TreePO` branches there within twice the tokens of its answers. An update is 64
answers to new problems for all. What counts is the share of right answers to 1,000 held-out
problems, at temperature 1 and with the same random numbers each time, after every fourth update:
the scores of the updates themselves are so noisy that a long run meets any score by chance. A run
ends when two such shares in a row have a mean of `--score`.

Settings are chosen on `--tuning-steps` and seed 10 by the mean share in the second half of a short
run: learning rate and lambda for PPO, learning rate for the others, each algorithm with the same
tokens for all of its runs together (`--chosen 2 1 1` names them by number instead). Figures are
medians over the seeds; a run that does not come to the score counts as one that takes longer than
all. Tokens are those that were chosen and those that the network read, in rollouts and updates;
seconds are those of the processor, without the measuring.

Run: taskset -c 0 python -m benchmarks.trees --threads 1
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from agents import PPO, Learner, TreePO, VinePPO
from agents.algorithm import Algorithm
from agents.runs.update import Update
from benchmarks import arithmetic_task as task
from benchmarks.common import command_line, median, report
from policies import Policy, TransformerPolicy

ROWS, EVERY, IN_A_ROW, PROBLEMS, HELD_OUT, TUNED_ON = 64, 4, 2, 40_000, 1_000, 10
STEP_TOKENS = 3
LONGEST = {"PPO": 240, "VinePPO": 96, "TreePO": 120}
"""Updates after which a run ends without the score."""
RATES = (5e-5, 1e-4, 2e-4)
SHARED: dict[str, Any] = {"n_epochs": 2, "minibatch_tokens": 512}


@dataclass(frozen=True)
class Setting:
    """An algorithm with its learning rate."""

    algorithm: Algorithm
    rate: float

    def __str__(self) -> str:
        lam = getattr(self.algorithm, "gae_lambda", None)
        return f"rate {self.rate:g}" + ("" if lam is None else f", lambda {lam:g}")


SETTINGS = {
    "PPO": [Setting(PPO(gae_lambda=lam, **SHARED), rate) for rate in RATES for lam in (0.95, 1.0)],
    "VinePPO": [
        Setting(VinePPO(continuations=4, step_tokens=STEP_TOKENS, **SHARED), rate) for rate in RATES
    ],
    "TreePO": [
        Setting(TreePO(segment_tokens=STEP_TOKENS, budget=2.0, **SHARED), rate) for rate in RATES
    ],
}


@dataclass
class Run:
    """What a training has cost so far.

    Attributes:
        updates: Updates so far.
        scores: Share of right answers to held-out problems, before and after every few updates.
        tokens: Tokens that were chosen.
        encoded: Tokens that the network read.
        seconds: Of the processor.
        reached: It came to the score.
    """

    scores: list[float]
    updates: int = 0
    tokens: float = 0.0
    encoded: float = 0.0
    seconds: float = 0.0
    reached: bool = False

    @property
    def lately(self) -> float:
        """Mean of the last shares; 0 as long as there are too few."""
        few = len(self.scores) <= IN_A_ROW
        return 0.0 if few else float(np.mean(self.scores[-IN_A_ROW:]))


def updates(policy: Policy, setting: Setting, steps: int, seed: int) -> Iterator[Update]:
    """The updates of a training, without end."""
    asked = task.problems(PROBLEMS, steps, 10_000 + seed)
    learner = Learner(
        policy,
        task.environment(asked, steps, ROWS),
        setting.algorithm,
        learning_rate=setting.rate,
        n_episodes=ROWS,
        seed=seed,
    )
    while True:
        yield learner.update()


def trained(
    before: TransformerPolicy,
    setting: Setting,
    steps: int,
    seed: int,
    *,
    enough: float = math.inf,
    longest: float = math.inf,
    most_tokens: float = math.inf,
) -> Run:
    """A copy of `before` trained until a score, a number of updates or of tokens is reached."""
    policy = before.frozen_copy().requires_grad_(True)
    held_out = task.problems(HELD_OUT, steps, 7, held_out=True)
    run, begin = Run([task.success(policy, held_out, steps)]), time.process_time()
    for update in updates(policy, setting, steps, seed):
        run.updates += 1
        run.tokens = update.tokens
        run.encoded += update.metrics["rollout_encoded_tokens"]
        run.encoded += update.metrics["update_encoded_tokens"]
        over = run.updates >= longest or run.tokens >= most_tokens
        if run.updates % EVERY == 0:
            run.seconds += time.process_time() - begin
            run.scores.append(task.success(policy, held_out, steps))
            run.reached = run.lately >= enough
            begin = time.process_time()
        if run.reached or over:
            break
    return run


def chosen(steps: int, tokens: float) -> dict[str, Setting]:
    """The best setting of each algorithm, each of which may choose so many tokens for that."""
    before, best = task.fine_tuned(steps, TUNED_ON), {}
    for name, settings in SETTINGS.items():
        found = []
        for setting in settings:
            run = trained(before, setting, steps, TUNED_ON, most_tokens=tokens / len(settings))
            score = float(np.mean(run.scores[len(run.scores) // 2 :]))
            found.append(score)
            print(
                f"{steps} steps  {name}  {setting}  {score:.3f}  {run.scores[-1]:.3f}  "
                f"{run.updates} updates  {run.tokens} tokens",
                flush=True,
            )
        best[name] = settings[int(np.argmax(found))]
    return best


def middle(values: list[float], reached: list[bool]) -> float | None:
    """The median over the seeds; None if too few have reached the score for one."""
    found = median([v if r else math.inf for v, r in zip(values, reached, strict=True)])
    return found if found < math.inf else None


def measure(arguments: Any) -> Iterator[dict[str, Any]]:
    """Rows of the table: an algorithm on problems of one length."""
    if arguments.chosen is None:
        settings = chosen(arguments.tuning_steps, arguments.tuning_tokens)
    else:
        pairs = zip(SETTINGS.items(), arguments.chosen, strict=True)
        settings = {name: some[number] for (name, some), number in pairs}
    for steps in arguments.steps:
        of_each: dict[str, list[Run]] = {name: [] for name in settings}
        for seed in arguments.seeds:
            before = task.fine_tuned(steps, seed)
            for name, setting in settings.items():
                longest = LONGEST[name]
                run = trained(before, setting, steps, seed, enough=arguments.score, longest=longest)
                of_each[name].append(run)
                shown = replace(run, scores=[round(score, 2) for score in run.scores])
                print(f"{steps} steps  {name}  {seed=}  {run.updates} updates  {shown}")
                sys.stdout.flush()
        for name, runs in of_each.items():
            reached = [run.reached for run in runs]
            yield {
                "steps": steps,
                "algorithm": name,
                "setting": str(settings[name]),
                "reached": f"{sum(reached)} of {len(runs)}",
                "updates": middle([run.updates for run in runs], reached),
                "of each seed": " ".join(str(run.updates) for run in runs),
                "chosen tokens": middle([run.tokens for run in runs], reached),
                "encoded tokens": middle([run.encoded for run in runs], reached),
                "seconds": middle([run.seconds for run in runs], reached),
                "before": median([run.scores[0] for run in runs]),
                "at the end": median([run.lately for run in runs]),
            }


def main() -> None:
    """Train and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--score", type=float, default=0.5)
    parser.add_argument("--tuning-tokens", type=float, default=8e5)
    parser.add_argument("--tuning-steps", type=int, default=4)
    parser.add_argument("--chosen", type=int, nargs=3, help="settings, by number: none are tried")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(
        "trees",
        measure(arguments),
        score=arguments.score,
        seeds=arguments.seeds,
        tuning_tokens=arguments.tuning_tokens,
    )


if __name__ == "__main__":
    main()

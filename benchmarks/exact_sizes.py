"""Distance to the best policy against tokens, on environments of 40, 341 and 1,365 answers.

Every answer has an independent random reward of 0 to 1 (`benchmarks.exact.reward`), so that nothing
learned of one answer says anything about another. The best policy under a KL leash of `BETA` is
pi_ref exp(r / BETA) / Z, and the reference is the untrained policy, which is nearly uniform over
tokens. All algorithms have the same network, rollouts and schedule, chosen on seed 10.

A run is kept as a file of `--folder` and not repeated, so several processes can share the work
(`--seeds`), and one that was interrupted goes on with the next run.

Run: taskset -c 0 python -m benchmarks.exact_sizes --threads 1 [--figure FILE]
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from agents import Learner
from agents.algorithm import Algorithm
from agents.algorithms import GRPO, PPO, RLOO
from benchmarks.common import command_line, report
from benchmarks.exact import Letters, reward
from policies import Policy, TransformerPolicy
from textenv import TextEnv, TextVectorEnv
from textenv.testing import exact

BETA = 0.3
"""Weight of the KL to the reference, in reward per nat."""
ALGORITHMS: Mapping[str, Algorithm] = {
    "PPO": PPO(n_epochs=1, minibatch_tokens=None, gae_lambda=1.0),
    "RLOO": RLOO(),
    "GRPO": GRPO(),
}
"""One optimiser step on each rollout, so that the three differ in the advantage alone."""
NETWORK = {"n_layer": 2, "n_head": 2, "n_embd": 64}
ROWS, EPISODES, GROUP = 256, 512, 8
POINTS = 40
"""Number of points of a curve, about."""


def rate(done: float) -> float:
    """Learning rate after this share of the training."""
    return 1e-3 * (1 - done)


@dataclass(frozen=True)
class Task:
    """All answers of at most `steps` letters and a stop token.

    Attributes:
        letters: Size of the alphabet.
        steps: Most tokens of an answer.
        tokens: Tokens that are chosen in a training, about.
        target: Total variation to be reached.
    """

    letters: int
    steps: int
    tokens: int
    target: float

    @cached_property
    def options(self) -> dict[str, Any]:
        """Arguments of the environment."""
        tokenizer = Letters(self.letters)
        return {
            "prompts": ["a"],
            "reward": reward,
            "tokenizer": tokenizer,
            "max_new_tokens": self.steps,
        }

    @cached_property
    def answers(self) -> exact.Answers:
        """Every answer and its reward."""
        return exact.enumerate_answers(TextEnv(**self.options), "a")

    def make_policy(self, seed: int) -> TransformerPolicy:
        """The untrained policy."""
        return TransformerPolicy.for_env(TextEnv(**self.options), seed=seed, **NETWORK)

    @torch.no_grad()
    def logprobs(self, policy: Policy) -> exact.Floats:
        """Log-probability of every answer, shape (n,)."""
        tokens, mask = torch.from_numpy(self.answers.tokens), torch.from_numpy(self.answers.mask)
        return policy.outputs(tokens, mask).logprobs.double().sum(1).numpy()


TASKS = {
    40: Task(letters=3, steps=3, tokens=250_000, target=0.05),
    341: Task(letters=4, steps=4, tokens=2_000_000, target=0.05),
    1365: Task(letters=4, steps=5, tokens=4_000_000, target=0.08),
}
"""By the number of answers."""


def train(task: Task, algorithm: Algorithm, seed: int) -> Iterator[tuple[int, float]]:
    """Chosen tokens so far and the total variation to the best policy, about `POINTS` times."""
    policy = task.make_policy(seed)
    reference = task.logprobs(policy)
    best = exact.optimum(reference, task.answers.rewards, BETA)
    yield 0, exact.total_variation(reference, best)
    learner = Learner(
        policy,
        TextVectorEnv(ROWS, group_size=GROUP, **task.options),
        algorithm,
        reference=policy.frozen_copy(),
        kl_coef=BETA,
        learning_rate=rate,
        n_episodes=EPISODES,
        seed=seed,
    )
    due = 0.0
    for update in learner.updates(task.tokens):
        if update.tokens >= min(due, task.tokens):
            due += task.tokens / POINTS
            yield update.tokens, exact.total_variation(task.logprobs(policy), best)


def run(answers: int, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """The curve and the seconds of one training, from its file if there is one."""
    file = folder / f"{answers}-{name}-{seed}.json"
    if not file.exists():
        task, begin = TASKS[answers], time.process_time()
        curve = list(train(task, ALGORITHMS[name], seed))
        done = {"curve": curve, "seconds": time.process_time() - begin}
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(done), encoding="utf-8")
        print(answers, name, seed, curve[-1], f"{done['seconds']:.0f} s", file=sys.stderr)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def row(answers: int, name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Distances before and after, over the seeds."""
    ends = [run["curve"][-1] for run in runs]
    distances = [distance for _, distance in ends]
    return {
        "answers": answers,
        "algorithm": name,
        "before": f"{statistics.mean(run['curve'][0][1] for run in runs):.3f}",
        "after": f"{statistics.mean(distances):.3f}",
        "worst": f"{max(distances):.3f}",
        "target": f"{TASKS[answers].target:.2f}",
        "seeds": len(runs),
        "tokens": statistics.mean(tokens for tokens, _ in ends),
        "seconds": statistics.mean(run["seconds"] for run in runs),
    }


def plot(path: Path, runs: Mapping[tuple[int, str], Sequence[Mapping[str, Any]]]) -> None:
    """A panel for each size: a thin line for each seed, in the colour of its algorithm."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "equal files for equal runs"
    from matplotlib import pyplot

    sizes = sorted({answers for answers, _ in runs})
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(3.2 * len(sizes), 3), sharey=True, squeeze=False
    )
    for answers, panel in zip(sizes, panels[0], strict=True):
        for number, name in enumerate(ALGORITHMS):
            for seed, found in enumerate(runs.get((answers, name), [])):
                tokens, distances = zip(*found["curve"], strict=True)
                thousands = [n / 1_000 for n in tokens]
                label = name if seed == 0 else None
                panel.plot(thousands, distances, f"C{number}", linewidth=0.8, label=label)
        panel.axhline(TASKS[answers].target, color="black", linewidth=0.8, linestyle=":")
        panel.set(title=f"{answers:,} answers", xlabel="thousand chosen tokens", yscale="log")
        panel.grid(alpha=0.3, which="both")
    panels[0][0].set_ylabel("total variation to the best policy")
    panels[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """A table over seeds, and a plot."""
    parser = command_line(__doc__)
    parser.add_argument("--answers", type=int, nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=Path("runs/exact_sizes"))
    parser.add_argument("--figure", type=Path, help="a file for the curves, such as sizes.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = {
        (answers, name): [run(answers, name, seed, arguments.folder) for seed in arguments.seeds]
        for answers in arguments.answers
        for name in arguments.algorithms
    }
    if arguments.figure:
        plot(arguments.figure, runs)
    rows = (row(*key, of_seeds) for key, of_seeds in runs.items())
    report("distance to the best policy by the number of answers", rows, seeds=arguments.seeds)


if __name__ == "__main__":
    main()

"""Distance to the best policy in conversations of two turns whose replies are drawn.

The agent says up to two letters and a stop token, the world replies with a letter that it draws,
the agent speaks once more: 98 conversations. What each turn earns is a fixed random number of 0 to
a half and depends on all that was said before. The best policy under a KL leash of `BETA` follows
from soft value backups (`textenv.testing.exact.soft_optimum`). Compared are the probabilities of
whole conversations, the world's part included.

All algorithms have the same network, rollouts and schedule, chosen on seed 10. A run is kept as a
file of `--folder` and not repeated.

Run: taskset -c 0 python -m benchmarks.exact_conversations --threads 1
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import Learner, returns
from agents.algorithm import Algorithm
from agents.algorithms import GRPO, PPO, RLOO
from benchmarks.common import command_line, report
from benchmarks.exact import Letters
from policies import Policy, TransformerPolicy
from textenv import Reply, TextVectorEnv, World
from textenv.testing import exact

BETA = 0.3
"""Weight of the KL to the reference, in reward per nat."""
TARGET = 0.05
"""Total variation to be reached."""
LETTERS = "ab"


@cache
def earned(*said: str) -> float:
    """A fixed random number of 0 to a half for what was said so far."""
    return float(np.random.default_rng([5, *map(ord, "/".join(said))]).random()) / 2


class Chat(World):
    """Replies with a letter that it draws, and pays for each of two turns."""

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> str:
        """The same opening every time."""
        return "a"

    def reply(self, turn: Any, rng: Any) -> Reply:
        """After the first turn a letter, a with a probability that depends on what was said."""
        if turn.number == 2:
            first, reply = turn.history
            paid = earned(first.text, reply.text, turn.text)
            return Reply(reward=paid, terminated=True)
        share = 0.2 + 1.2 * earned(turn.text, "?")
        said = rng.choice(list(LETTERS), p=[share, 1 - share])
        return Reply(str(said), reward=earned(turn.text))


OPTIONS: dict[str, Any] = {
    "tokenizer": Letters(len(LETTERS)),
    "max_prompt_tokens": 1,
    "max_turn_tokens": 2,
    "max_new_tokens": 6,
}
TALKS = exact.enumerate_conversations(Chat, **OPTIONS)
TOKENS, MASK = torch.from_numpy(TALKS.tokens), torch.from_numpy(TALKS.mask)

ONCE: dict[str, Any] = {"n_epochs": 1, "minibatch_tokens": None, "gae_lambda": 1.0}
ALGORITHMS: Mapping[str, Algorithm] = {
    "PPO": PPO(**ONCE),
    "PPO by turn": PPO(**ONCE, credit=returns.gae_by_turn),
    "PPO by answer": PPO(**ONCE, credit=returns.gae_by_answer),
    "RLOO": RLOO(),
    "RLOO by turn": RLOO(credit=returns.by_turn),
    "GRPO": GRPO(),
    "GRPO by turn": GRPO(credit=returns.by_turn),
}
"""One optimiser step on each rollout, so that they differ in the credit and the loss alone."""
NETWORK = {"n_layer": 2, "n_head": 2, "n_embd": 48}
ROWS, EPISODES, GROUP = 128, 256, 8
CHOSEN = 250_000
"""Tokens that are chosen in a training, about."""
POINTS = 40
"""Number of points of a curve, about."""


def rate(done: float) -> float:
    """Learning rate after this share of the training."""
    return 3e-3 * (1 - done)


def environment(rows: int = ROWS, group: int = GROUP) -> TextVectorEnv:
    """Conversations with `Chat`."""
    return TextVectorEnv(rows, world=Chat, group_size=group, **OPTIONS)


def make_policy(seed: int) -> TransformerPolicy:
    """The untrained policy; larger embeddings tell histories apart from the beginning."""
    policy = TransformerPolicy.for_env(environment(1, 1), seed=seed, **NETWORK)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(3)
    return policy


@torch.no_grad()
def token_logprobs(policy: Policy) -> exact.Floats:
    """Log-probability of each of the agent's tokens, shape (n, L)."""
    return policy.outputs(TOKENS, MASK).logprobs.double().numpy()


def train(
    algorithm: Algorithm, seed: int, tokens: int = CHOSEN
) -> Iterator[tuple[int, float, float]]:
    """Chosen tokens so far, total variation to the best policy, and regret, `POINTS` times."""
    policy = make_policy(seed)
    ref = token_logprobs(policy)
    best = exact.soft_optimum(TALKS, ref, BETA)
    whole_ref = TALKS.world_logprobs + ref.sum(1)

    def measured() -> tuple[float, float]:
        own = TALKS.world_logprobs + token_logprobs(policy).sum(1)
        of_best, of_own = (
            exact.objective(logprobs, TALKS.rewards, whole_ref, BETA) for logprobs in (best, own)
        )
        return exact.total_variation(own, best), of_best - of_own

    yield 0, *measured()
    learner = Learner(
        policy,
        environment(),
        algorithm,
        reference=policy.frozen_copy(),
        kl_coef=BETA,
        learning_rate=rate,
        n_episodes=EPISODES,
        seed=seed,
    )
    due = 0.0
    for update in learner.updates(tokens):
        if update.tokens >= min(due, tokens):
            due += tokens / POINTS
            yield update.tokens, *measured()


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """The curve and the seconds of one training, from its file if there is one."""
    file = folder / f"{name}-{seed}.json".replace(" ", "-")
    if not file.exists():
        begin = time.process_time()
        curve = list(train(ALGORITHMS[name], seed))
        done = {"curve": curve, "seconds": time.process_time() - begin}
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(done), encoding="utf-8")
        print(name, seed, curve[-1], f"{done['seconds']:.0f} s", file=sys.stderr)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def row(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Distances before and after, over the seeds."""
    _, distances, regrets = zip(*(run["curve"][-1] for run in runs), strict=True)
    return {
        "algorithm": name,
        "before": f"{statistics.mean(run['curve'][0][1] for run in runs):.3f}",
        "after": f"{statistics.mean(distances):.3f}",
        "worst": f"{max(distances):.3f}",
        "target": f"{TARGET:.2f}",
        "regret": f"{statistics.mean(regrets):.4f}",
        "seeds": len(runs),
        "seconds": statistics.mean(run["seconds"] for run in runs),
    }


def main() -> None:
    """A table over seeds."""
    parser = command_line(__doc__)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=Path("runs/exact_conversations"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = (
        row(name, [run(name, seed, arguments.folder) for seed in arguments.seeds])
        for name in arguments.algorithms
    )
    report("distance to the best policy in conversations", rows, seeds=arguments.seeds)


if __name__ == "__main__":
    main()

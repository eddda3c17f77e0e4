"""Rollouts by Ray's actors against the rollout of one process, model S, one thread each.

Every side collects 64 steps of answers of 64 tokens, with weights that were changed since the round
before and have to be sent. `2 x 16` are two actors that share the 32 rows of the one process,
`2 x 32` two with 32 rows each. `slow reward` is an update of GRPO (32 answers of 16 tokens) whose
reward takes half a second for each call: what the process waits for, the actors wait for at the
same time, and one update ahead while the learner updates.

Run on two processors: python -m benchmarks.ray_collectors --threads 1
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from agents import GRPO, Collector, Learner
from agents.collector import RolloutSource
from agents.remote import RayCollectors
from benchmarks.common import (
    MAX_ANSWER,
    ROWS,
    Ids,
    command_line,
    interleaved,
    make_policy,
    median,
    no_reward,
    random_prompts,
    ratio,
    report,
    timed,
)
from policies import TransformerPolicy
from textenv import TextVectorEnv

WORKERS = 2
SLOW = 0.5
"""Seconds that a call of the slow reward takes."""
SHORT = 16
"""Tokens of an answer that the slow reward scores."""


def slow_reward(episodes: Sequence[Any]) -> list[float]:
    """The share of even ids, after a while."""
    time.sleep(SLOW)
    return [float((episode.tokens % 2 == 0).mean()) for episode in episodes]


def environment(policy: TransformerPolicy, rows: int, tokens: int, **options: Any) -> TextVectorEnv:
    """Prompts of random ids."""
    prompts = [{"tokens": ids} for ids in random_prompts(256, policy.vocab_size)]
    ids = Ids(policy.vocab_size)
    return TextVectorEnv(rows, prompts=prompts, tokenizer=ids, max_new_tokens=tokens, **options)


def rate(
    policy: TransformerPolicy, make: Callable[..., RolloutSource], rows: int
) -> Callable[[], float]:
    """Chosen tokens a second, the sending of weights included."""
    collector = make(policy, environment(policy, rows, MAX_ANSWER, reward=no_reward), 1.0, 0)

    def run() -> float:
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(1 + 1e-6)
        begin = time.perf_counter()
        tokens = collector.collect_steps(MAX_ANSWER).num_tokens
        return tokens / (time.perf_counter() - begin)

    return run


def slow_updates(make: Callable[..., RolloutSource]) -> Callable[[], float]:
    """Updates a second where the reward is slow."""
    policy = make_policy("S")
    envs = environment(policy, ROWS, SHORT, reward=slow_reward, group_size=8)
    learner = Learner(
        policy, envs, GRPO(), n_episodes=ROWS, importance_cap=2.0, collector=make, seed=0
    )
    return lambda: 1 / timed(learner.update)


def measure(repeats: int) -> Iterator[dict[str, Any]]:
    """Two comparisons."""
    policy = make_policy("S")
    # A quarter of a processor each: all sides are there at once, and one works at a time.
    pool = partial(RayCollectors, workers=WORKERS, num_cpus=0.25)
    rollouts = {
        f"one process, {ROWS} rows": rate(policy, Collector, ROWS),
        f"{WORKERS} x {ROWS // WORKERS}": rate(policy, pool, ROWS),
        f"{WORKERS} x {ROWS}": rate(policy, pool, WORKERS * ROWS),
    }
    updates = {
        "one process": slow_updates(Collector),
        f"{WORKERS} actors": slow_updates(pool),
        f"{WORKERS} actors, an update ahead": slow_updates(partial(pool, staleness=1)),
    }
    for work, sides in (("rollout, tokens/s", rollouts), ("slow reward, updates/s", updates)):
        figures = interleaved(sides, repeats)
        alone = next(iter(sides))
        for side in sides:
            yield {
                "work": work,
                "side": side,
                "a second": median(figures[side]),
                "to one process": f"{ratio(figures, side, alone):.2f}",
            }


def main() -> None:
    """A table of rates."""
    arguments = command_line(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    report("rollouts by Ray", measure(arguments.repeats), seed=0, repeats=arguments.repeats)


if __name__ == "__main__":
    main()

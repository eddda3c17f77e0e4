"""What a world costs: microseconds a reply, and rollouts in which replies take 20 milliseconds.

The first table is the environment alone, against the same steps without a world: processor time a
reply above the world's own, with turns of 4 and of 32 tokens, and steps in which no turn ends. The
second is a rollout of model S with turns of 16 tokens in 32 rows, whose ends are spread over the
steps: seconds for each chosen token, as multiples of those without a delay, when a step waits for
its replies and with `world_wait="async"`.

Run: taskset -c 0 python -m benchmarks.replies --threads 1
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agents.collector import Collector
from benchmarks.common import ROWS, Ids, command_line, interleaved, make_policy, report
from textenv import Reply, TextVectorEnv, Turn, World

LONGEST, DELAY, TURN = 400, 0.020, 16
REPLY = Reply("okay then", reward=0.1)
IDS = Reply("1 2 3 4", reward=0.1)


class AtOnce(World):
    """Always says the same; its own time is that of a call."""

    def reply(self, turn: Turn, rng: np.random.Generator) -> Reply:
        """The same reply."""
        return REPLY


def stepped(turn: int | None) -> tuple[float, int]:
    """Microseconds of processor time a step, and replies; without a world if there is no turn."""
    kind: dict[str, Any] = {"reward": lambda episodes: [0.0] * len(episodes)}
    if turn is not None:
        kind = {"world": AtOnce, "max_turn_tokens": turn}
    envs = TextVectorEnv(ROWS, prompts=["hello there"], max_new_tokens=LONGEST, **kind)
    envs.reset(seed=0)
    actions, replies, steps = np.full(ROWS, 97), 0, LONGEST - 1
    begin = time.process_time()
    for _ in range(steps):
        *_, infos = envs.step(actions)
        if "_reply" in infos:
            replies += int(infos["_reply"].sum())
    return (time.process_time() - begin) / steps * 1e6, replies


def cost_of_replies(repeats: int) -> list[dict[str, Any]]:
    """The first table."""
    rows = []
    for turn in (4, 32, LONGEST):
        extra, ratios = [], []
        for _ in range(repeats + 1):
            plain, _ = stepped(None)
            world, replies = stepped(turn)
            ratios.append(world / plain)
            extra.append((world - plain) * (LONGEST - 1) / max(replies, 1))
        ends = turn < LONGEST
        rows.append(
            {
                "turn": f"{turn} tokens" if ends else "none ends",
                "us a reply": statistics.median(extra[1:]) if ends else None,
                "step / step without world": statistics.median(ratios[1:]),
            }
        )
    return rows


class Late(World):
    """Takes its time, without using a processor."""

    def begin(self, record: Any, rng: np.random.Generator) -> str:
        """Sixteen random ids."""
        return " ".join(map(str, rng.integers(0, 4096, 16)))

    async def reply(self, turn: Turn, rng: np.random.Generator) -> Reply:
        """Four ids, after a while."""
        await asyncio.sleep(DELAY)
        return IDS


class NotLate(Late):
    """The same at once."""

    def reply(self, turn: Turn, rng: np.random.Generator) -> Reply:  # type: ignore[override]
        """Four ids."""
        return IDS


def rollout_of(
    world: type[World], world_wait: str, stops: list[int], steps: int
) -> Callable[[], float]:
    """A function that collects a rollout and gives the chosen tokens a second."""
    policy = make_policy("S")
    envs = TextVectorEnv(
        ROWS,
        world=world,
        tokenizer=Ids(policy.vocab_size),
        stop_tokens=stops,
        max_prompt_tokens=16,
        max_turn_tokens=4 * TURN,
        max_new_tokens=200,
        world_wait=world_wait,
    )
    collector = Collector(policy, envs, seed=0)

    def run() -> float:
        begin = time.perf_counter()
        chosen = collector.collect_steps(steps).num_tokens
        return chosen / (time.perf_counter() - begin)

    return run


def cost_of_waiting(repeats: int, steps: int) -> list[dict[str, Any]]:
    """The second table."""
    stops = list(range(0, 4096, TURN))  # one token of sixteen ends a turn, at random
    sides = {
        "no delay": rollout_of(NotLate, "all", stops, steps),
        "a step waits for its replies": rollout_of(Late, "all", stops, steps),
        "world_wait='async'": rollout_of(Late, "async", stops, steps),
    }
    figures = interleaved(sides, repeats)
    rows = []
    for name, rates in figures.items():
        times = [first / rate for first, rate in zip(figures["no delay"], rates, strict=True)]
        rows.append(
            {
                "replies of 20 ms": name,
                "chosen tokens/s": statistics.median(rates),
                "time a chosen token": statistics.median(times),
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--steps", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report("replies", cost_of_replies(arguments.repeats))
    report("waiting", cost_of_waiting(arguments.repeats, arguments.steps))


if __name__ == "__main__":
    main()

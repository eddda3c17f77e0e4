"""One RL step, rollout and update: textenv's learner against TRL's GRPO and RLOO trainers.

Same network and weights, 32 answers of 64 tokens (or stopping on their own: "varied") in groups of
8, one epoch, AdamW. TRL in fp32, as shipped (bf16, gradient checkpointing) and at its strongest
(bf16, no checkpointing), textenv in fp32 and with bf16 updates; all bf16 only on processors that
have it. Useful tokens per second, medians over steps; sides are interleaved.

Run: taskset -c 0 python -m benchmarks.end_to_end --threads 1

glibc gives large buffers back to the system at every step. For peers at their strongest, keep them:

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.optim import AdamW

from agents import Learner
from agents.algorithms import GRPO
from benchmarks.common import (
    BF16,
    MAX_ANSWER,
    ROWS,
    Ids,
    command_line,
    even_share,
    interleaved,
    make_policy,
    median,
    peak_memory,
    random_prompts,
    ratio,
    report,
)
from benchmarks.peers import STOP, let_it_stop, rate_of_steps, run_trl
from textenv import TextVectorEnv

GROUP = 8

OURS = {"textenv fp32": torch.float32} | ({"textenv bf16": torch.bfloat16} if BF16 else {})


def textenv_rate(policy, prompts, varied: bool, steps: int, precision=torch.float32):
    """Tokens per second of a learner that runs on from call to call."""
    envs = TextVectorEnv(
        ROWS,
        prompts=[{"tokens": p} for p in prompts],
        reward=lambda episodes: [even_share(e.tokens) for e in episodes],
        tokenizer=Ids(policy.vocab_size),
        max_new_tokens=MAX_ANSWER,
        stop_tokens=[STOP] if varied else [],
        group_size=GROUP,
    )
    learner = Learner(
        policy,
        envs,
        GRPO(),
        learning_rate=1e-4,
        optimizer=AdamW,
        n_episodes=ROWS,
        precision=precision,
    )

    def run() -> float:
        rates = [learner.update().tokens_per_second for _ in range(steps)]
        return median(rates)

    return run


def trl_rate(policy, prompts, steps: int, **setting):
    """Tokens per second of TRL, the first step left out."""

    def run() -> float:
        record = run_trl(policy, prompts, even_share, steps=steps + 1, group_size=GROUP, **setting)
        return rate_of_steps(record)

    return run


def compare(
    model: str, varied: bool, peers: dict[str, dict[str, Any]], repeats: int, steps: int
) -> Iterator[dict[str, Any]]:
    """Rows of the table for one model and one kind of answers."""
    policy = make_policy(model)
    if varied:
        let_it_stop(policy, mean_length=36)
    prompts = random_prompts(256, policy.vocab_size - 2)
    sides = {name: trl_rate(policy, prompts, steps, **setting) for name, setting in peers.items()}
    for side, precision in OURS.items():
        copy = policy.frozen_copy().requires_grad_()
        sides[side] = textenv_rate(copy, prompts, varied, steps, precision)
    figures = interleaved(sides, repeats)
    for side in OURS:
        for name in peers:
            yield {
                "model": model,
                "answers": "varied" if varied else "fixed",
                "side": side,
                "peer": name,
                "tokens/s": median(figures[side]),
                "peer tokens/s": median(figures[name]),
                "ratio": ratio(figures, side, name),
            }


def memory_of_side(model: str, side: str) -> float:
    """Peak resident memory in GB of a few steps of one side, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.end_to_end", "--memory-of", model, side]
    return float(subprocess.run(command, check=True, capture_output=True).stdout.split()[-1])


def memory_of(model: str, side: str) -> None:
    """Print the peak resident memory of this process after a few steps."""
    policy = make_policy(model)
    prompts = random_prompts(256, policy.vocab_size - 2)
    run = (
        textenv_rate(policy, prompts, False, 2)
        if side == "textenv"
        else trl_rate(policy, prompts, 2)
    )
    run()
    print(peak_memory() / 1024)


def main() -> None:
    """Measure the settings asked for."""
    parser = command_line(__doc__)
    parser.add_argument("--models", nargs="+", default=["S", "M"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        memory_of(*arguments.memory_of)
        return
    rows = measure(arguments.models, arguments.repeats, arguments.steps)
    report("end_to_end", rows, seed=0, repeats=arguments.repeats)
    if "M" in arguments.models:
        memory = {side: memory_of_side("M", side) for side in ("textenv", "trl")}
        print(f"peak memory, model M: {memory}")


def measure(models: Sequence[str], repeats: int, steps: int) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    both: dict[str, dict[str, Any]] = {"TRL GRPO fp32": {}}
    if BF16:
        both["TRL GRPO bf16"] = {"bf16": True}
    if "S" in models:
        fixed = both | {"TRL RLOO fp32": {"trainer": "RLOO"}}
        if BF16:
            fixed["TRL GRPO as shipped"] = {"bf16": True, "checkpointing": True}
        yield from compare("S", False, fixed, repeats, steps)
        yield from compare("S", True, both, repeats, steps)
    if "M" in models:
        yield from compare("M", False, both, repeats, 1)


if __name__ == "__main__":
    main()

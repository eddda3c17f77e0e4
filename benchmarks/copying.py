"""How soon a small network learns to copy from its context, with AdamW and with Muon.

Windows of short random lists, each written twice: only the second time can its items be known, by
finding the first. A row is an optimiser and a peak learning rate, the same network and windows: the
share of second items that are the likeliest token after each 200,000 tokens.

Run: python -m benchmarks.copying --threads 1
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.supervised import Fitting, next_token_loss
from agents.supervised.optimisers import OPTIMISERS
from benchmarks.common import command_line, report
from policies import TransformerConfig, TransformerPolicy

WORDS, WINDOW, BATCH = 300, 160, 4
BEGIN, AGAIN, END = range(WORDS, WORDS + 3)
TOKENS, EVERY = 1_600_000, 200_000
RATES: Mapping[str, tuple[float, ...]] = {"adamw": (1e-3, 2e-3, 4e-3), "muon": (2e-3, 4e-3)}


def lists(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Windows of one token more than is read, and which of their tokens are second items."""
    tokens = np.zeros((count, WINDOW + 1), np.int64)
    known = np.zeros((count, WINDOW + 1), bool)
    for row in range(count):
        said: list[int] = []
        copied: list[bool] = []
        while len(said) <= WINDOW:
            items = rng.choice(WORDS, int(rng.integers(3, 9)), replace=False).tolist()
            said += [BEGIN, *items, AGAIN, *items, END]
            copied += [False] * (len(items) + 2) + [True] * len(items) + [False]
        tokens[row], known[row] = said[: WINDOW + 1], copied[: WINDOW + 1]
    return tokens, known


@torch.no_grad()
def copied(policy: TransformerPolicy) -> float:
    """Share of second items that are the likeliest token."""
    tokens, known = lists(np.random.default_rng(1), 32)
    lengths = torch.full((len(tokens),), WINDOW)
    read = torch.from_numpy(tokens[:, :-1]).flatten()
    likeliest = policy.logits(policy.hidden_states(read, lengths)).argmax(-1).numpy()
    right: NDArray[np.bool_] = (likeliest == tokens[:, 1:].flatten())[known[:, 1:].flatten()]
    return float(right.mean())


def learned(optimizer: str, rate: float) -> dict[str, Any]:
    """A row of the table."""
    config = TransformerConfig.llama(WORDS + 3, WINDOW, n_layer=3, n_head=4, n_embd=128)
    policy = TransformerPolicy(config, seed=0)
    steps = TOKENS // (BATCH * WINDOW)
    fitting = Fitting(
        policy,
        steps=steps,
        learning_rate=rate,
        optimizer=OPTIMISERS[optimizer],
        precision=torch.bfloat16,
    )
    rng, begin = np.random.default_rng(0), time.process_time()
    row: dict[str, Any] = {"optimiser": optimizer, "rate": f"{rate:g}"}
    for step in range(1, steps + 1):
        windows, _ = lists(rng, BATCH)
        fitting.step(next_token_loss(policy, some) for some in [windows])
        tokens = step * BATCH * WINDOW
        if tokens % EVERY < BATCH * WINDOW:
            row[f"{tokens // 1000}k"] = round(copied(policy), 2)
    return row | {"ms a step": (time.process_time() - begin) / steps * 1e3}


def main() -> None:
    """Train and print the table."""
    torch.set_num_threads(command_line(__doc__).parse_args().threads)
    report("copying", (learned(name, rate) for name, rates in RATES.items() for rate in rates))


if __name__ == "__main__":
    main()

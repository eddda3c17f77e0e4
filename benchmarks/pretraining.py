"""nanoGPT's published CPU run: does it reach the same loss here, in no more time?

Characters of tinyshakespeare, 2,000 steps of 12 windows of 64, 4 layers, 4 heads, width 128, no
dropout; nanoGPT's readme gives a validation loss of 1.88. The yardstick of speed is a plain PyTorch
loop of that architecture with the same optimiser, the two in turn, medians over rounds.

Run: taskset -c 0 python -m benchmarks.pretraining INPUT.txt --threads 1
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.supervised import (
    Fitting,
    adamw,
    held_out_loss,
    next_token_loss,
    pretraining_steps,
)
from agents.supervised.pretraining import random_windows
from benchmarks.common import command_line, interleaved, report
from policies import TransformerConfig, TransformerPolicy
from textenv.tokenizers import CharacterTokenizer

WINDOW, BATCH, STEPS, RATE = 64, 12, 2000, 2e-3
STEPS_OF_A_ROUND = 60


class PlainBlock(nn.Module):
    """A block like nanoGPT's: one product for queries, keys and values, fused attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln_1(x)).split(c, dim=2)
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.ln_2(x))))


class PlainGPT(nn.Module):
    """A GPT-2 on a rectangle of tokens."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.n_embd
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.context, width)
        self.blocks = nn.Sequential(
            *(PlainBlock(width, config.n_head) for _ in range(config.n_layer))
        )
        self.ln_f = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, T + 1) to the mean cross-entropy."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        x = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1]))
        logits = self.ln_f(self.blocks(x)) @ self.tokens.weight.T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def speeds(config: TransformerConfig, stream: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Tokens/s of ours and of the plain loop, taken in turn."""

    def runner(model: nn.Module, loss: Callable[[Tensor], Tensor]) -> Callable[[], float]:
        fitting = Fitting(model, steps=10**6, learning_rate=RATE)
        generator = np.random.default_rng(0)

        def run() -> float:
            begin = time.perf_counter()
            for _ in range(STEPS_OF_A_ROUND):
                windows = torch.from_numpy(random_windows(stream, generator, BATCH, WINDOW))
                fitting.step([loss(windows)])
            return STEPS_OF_A_ROUND * BATCH * WINDOW / (time.perf_counter() - begin)

        return run

    policy, plain = TransformerPolicy(config), PlainGPT(config)
    ours = runner(policy, lambda windows: next_token_loss(policy, windows))
    return interleaved({"ours": ours, "plain": runner(plain, plain)}, repeats)


def main() -> None:
    """Train to the end for the loss, then compare speeds."""
    parser = command_line(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("text", type=Path, help="tinyshakespeare's input.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = arguments.text.read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer.of_texts([text])
    stream = np.array(tokenizer.encode(text), dtype=np.uint16)
    training, kept = np.split(stream, [int(0.9 * len(stream))])
    config = TransformerConfig(tokenizer.vocab_size, WINDOW, 4, 4, 128)
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=arguments.seed)
    begin = time.perf_counter()
    for _ in pretraining_steps(
        policy,
        training,
        total_tokens=STEPS * BATCH * WINDOW,
        window=WINDOW,
        batch_size=BATCH,
        seed=arguments.seed,
        fitting=Fitting(
            policy, steps=STEPS, learning_rate=RATE, optimizer=partial(adamw, beta2=0.99)
        ),
    ):
        pass
    seconds = time.perf_counter() - begin
    loss = held_out_loss(policy, kept, WINDOW, windows=len(kept) // WINDOW)
    measured = speeds(config, training, arguments.repeats)
    ours, plain = (statistics.median(measured[side]) for side in ("ours", "plain"))
    rows = [
        {
            "validation loss": round(loss, 4),
            "seconds": seconds,
            "tokens/s": ours,
            "plain loop, tokens/s": plain,
            "ratio": round(ours / plain, 3),
        }
    ]
    report("pretraining", rows, seed=arguments.seed)


if __name__ == "__main__":
    main()

"""Rollout of a Hugging Face model: `envs.step` + `policy.act` against the model's own `generate`.

Same weights, same prompts, 32 rows. Answers have 8 to 64 tokens ("varied") or 64 ("fixed"); the
lengths are drawn beforehand, the same for both sides. Only useful tokens count.

Run: taskset -c 0 python -m benchmarks.huggingface HuggingFaceTB/SmolLM2-135M-Instruct --threads 1
"""

import numpy as np
import torch

from benchmarks.common import (
    MAX_ANSWER,
    MIN_ANSWER,
    ROWS,
    Ids,
    command_line,
    interleaved,
    median,
    peak_memory,
    random_prompts,
    ratio,
    ratios,
    report,
)
from benchmarks.rollout import generate_rate, textenv_rate
from policies.huggingface import HuggingFacePolicy
from policies.huggingface.loading import load_model


def main() -> None:
    """Measure one model."""
    parser = command_line(__doc__)
    parser.add_argument("model", help="A name on the hub, or a folder.")
    parser.add_argument("--tokens", type=int, default=ROWS * MAX_ANSWER, help="A round's tokens.")
    parser.add_argument("--kinds", nargs="+", default=["varied"], choices=["varied", "fixed"])
    parser.add_argument("--bf16", action="store_true", help="Weights of both sides in bf16.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    model = load_model(arguments.model, dtype=dtype).eval()  # of its own, with its own attention
    vocab_size = model.config.vocab_size
    policy = HuggingFacePolicy(load_model(arguments.model, dtype=dtype), Ids(vocab_size))
    policy.pack_weights()
    prompts = random_prompts(512, vocab_size)
    rng = np.random.default_rng(1)
    rows = []
    for kind in arguments.kinds:
        low = MIN_ANSWER if kind == "varied" else MAX_ANSWER
        lengths = rng.integers(low, MAX_ANSWER + 1, 512)
        sides = {
            "textenv": textenv_rate(policy, prompts, lengths, arguments.tokens),  # type: ignore[arg-type]
            "generate": generate_rate(model, prompts, lengths, arguments.tokens),
        }
        figures = interleaved(sides, arguments.repeats)
        rows.append(
            {
                "model": arguments.model.rstrip("/").split("/")[-1],
                "answers": kind,
                "textenv tokens/s": median(figures["textenv"]),
                "generate tokens/s": median(figures["generate"]),
                "ratio": ratio(figures, "textenv", "generate"),
                "rounds": ", ".join(f"{r:.2f}" for r in ratios(figures, "textenv", "generate")),
            }
        )
    report(
        "huggingface",
        rows,
        seed=0,
        repeats=arguments.repeats,
        dtype=str(dtype),
        peak_memory_mb=peak_memory(),
    )


if __name__ == "__main__":
    main()

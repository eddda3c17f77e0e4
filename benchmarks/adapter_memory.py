"""Memory and time of PPO on a Hugging Face model: LoRA against full fine-tuning.

LoRA's reference is the same weights with the adapter off. Full fine-tuning keeps a second copy of
the model as its reference. Each side runs in a process of its own: updates of 16 rows and 16 tokens
each, Adam, fp32; by default in minibatches of 64 tokens with checkpointed activations. The peak is
that of the whole process, imports and loading included.

Run: python -m benchmarks.adapter_memory HuggingFaceTB/SmolLM2-135M-Instruct --threads 1
"""

import argparse
import multiprocessing
from typing import Any

import torch

from benchmarks.common import command_line, no_reward, peak_memory, random_prompts, report, timed

ROWS, STEPS = 16, 16


def run(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one side."""
    from agents import PPO, Learner
    from policies.huggingface import HuggingFacePolicy
    from textenv import TextVectorEnv

    torch.set_num_threads(arguments.threads)
    policy = HuggingFacePolicy.from_pretrained(arguments.model)
    if not arguments.keep_activations:
        policy.checkpoint_activations()
    loaded = peak_memory()
    if side == "lora":
        from peft import LoraConfig

        policy.add_adapter(LoraConfig(r=16, target_modules="all-linear"))
        reference: Any = policy.reference()
    else:
        reference = policy.frozen_copy()
    envs = TextVectorEnv(
        ROWS,
        prompts=[{"tokens": p} for p in random_prompts(64, policy.vocab_size)],
        reward=no_reward,
        tokenizer=policy.tokenizer,
        max_new_tokens=STEPS,
    )
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=1, minibatch_tokens=arguments.minibatch or None),
        reference=reference,
        kl_coef=0.05,
        n_steps=STEPS,
        micro_batch_tokens=arguments.parts,
    )
    seconds = min(timed(learner.update) for _ in range(arguments.repeats))
    return {
        "side": side,
        "trained parameters, M": sum(p.numel() for p in learner.trained) / 1e6,
        "peak MB": peak_memory(),
        "of which to load, MB": loaded,
        "seconds an update": seconds,
    }


def main() -> None:
    """Measure both sides."""
    parser = command_line(__doc__)
    parser.add_argument("model", help="A name on the hub, or a folder.")
    parser.add_argument("--minibatch", type=int, default=64, help="Tokens; 0: the whole rollout.")
    parser.add_argument("--parts", type=int, help="Tokens that are in memory at once.")
    parser.add_argument("--keep-activations", action="store_true")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for side in ("lora", "full"):
        # In a process of its own, so that the peak is this side's alone.
        with context.Pool(1) as pool:
            rows.append(pool.apply(run, (side, arguments)))
            pool.close()
            pool.join()
    lora, full = rows
    report(
        "adapter_memory",
        rows,
        seed=0,
        updates=arguments.repeats,
        minibatch=arguments.minibatch,
        parts=arguments.parts,
        keep_activations=arguments.keep_activations,
        memory_ratio=lora["peak MB"] / full["peak MB"],
    )


if __name__ == "__main__":
    main()

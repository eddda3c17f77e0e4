"""How far the log-probabilities of an update in lower precision are from those of the rollout.

Before the first step the policy is the one that sampled, so every ratio of new to old probability
should be 1. Rounding in the products changes it. Printed are the standard deviation of its
logarithm, the largest logarithm, and the share of ratios outside PPO's clip of 0.2, over
`--repeats` rollouts. The model is our model S with random weights, or a model of transformers.

Run: taskset -c 0 python -m benchmarks.precision [FOLDER-OR-OWNER/NAME] --threads 1 --repeats 10
"""

from collections.abc import Iterator
from typing import Any

import torch

from agents import GRPO, Learner, losses
from benchmarks.common import (
    MAX_ANSWER,
    command_line,
    even_share,
    make_policy,
    random_prompts,
    report,
)
from benchmarks.huggingface_step import chats
from policies import HuggingFacePolicy, Policy
from policies.huggingface.loading import load_models_tokenizer
from textenv import TextVectorEnv

PRECISIONS = (torch.float32, torch.bfloat16)
ANSWERS, GROUP, CLIP = 8, 8, 0.2


def policy_and_prompts(model: str | None) -> tuple[Policy, list[list[int]]]:
    """Model S and random prompts, or someone's model and prompts in its chat format."""
    if model is None:
        policy = make_policy("S")
        return policy, random_prompts(256, policy.vocab_size)
    tokenizer = load_models_tokenizer(model)
    prompts = [tokenizer.encode(prompt) for prompt in chats(tokenizer)]
    return HuggingFacePolicy.from_pretrained(model), prompts


@torch.no_grad()
def moves(learner: Learner) -> torch.Tensor:
    """Log-probabilities by the update less those of the rollout, shape (tokens,)."""
    rollout = learner.collect()
    return (learner.outputs(rollout).logprobs - rollout.logprobs)[rollout.mask]


def measure(model: str | None, repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    for precision in PRECISIONS:
        policy, prompts = policy_and_prompts(model)
        envs = TextVectorEnv(
            ANSWERS,
            prompts=[{"tokens": prompt} for prompt in prompts],
            reward=lambda episodes: [even_share(e.tokens) for e in episodes],
            tokenizer=policy.tokenizer,
            max_new_tokens=MAX_ANSWER,
            group_size=GROUP,
        )
        learner = Learner(policy, envs, GRPO(), n_episodes=ANSWERS, precision=precision)
        moved = torch.cat([moves(learner) for _ in range(repeats)])
        unmoved, chosen = torch.zeros_like(moved), torch.ones_like(moved, dtype=torch.bool)
        outside = losses.clip_fraction(moved, unmoved, chosen, CLIP, CLIP)
        yield {
            "model": model or "S",
            "precision": str(precision).removeprefix("torch."),
            "tokens": len(moved),
            "std of log ratio": f"{float(moved.std()):.1e}",
            "largest": f"{float(moved.abs().max()):.1e}",
            "outside the clip": f"{float(outside):.2%}",
        }


def main() -> None:
    """All precisions, one after the other."""
    parser = command_line(__doc__)
    parser.add_argument("model", nargs="?", help="of transformers; our own model S if not given")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments.model, arguments.repeats)
    report("precision", rows, seed=0, repeats=arguments.repeats)


if __name__ == "__main__":
    main()

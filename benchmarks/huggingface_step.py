"""One RL step on a real model: textenv's learner against TRL's GRPO trainer.

Same weights, full fine-tuning in fp32 with AdamW, 8 answers of at most 64 tokens to one prompt.
The prompts ask, in the model's chat format, to continue a sentence. Answers end on their own, most
of them between 10 and 40 tokens. Useful tokens per second, the sides in turn.

Run: python -m benchmarks.huggingface_step HuggingFaceTB/SmolLM2-135M-Instruct --threads 1
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim import AdamW

from agents import GRPO, Learner
from agents.jobs import speeches
from benchmarks.common import command_line, even_share, interleaved, median, ratio, ratios, report
from benchmarks.peers import rate_of_steps, train_with_trl
from policies import HuggingFacePolicy
from policies.huggingface.loading import load_model, load_models_tokenizer
from textenv import TextVectorEnv

ANSWERS, GROUP, LENGTH = 8, 8, 64
INSTRUCTION = "Continue this sentence in a few words: "


def chats(tokenizer: Any) -> list[str]:
    """256 prompts as the model knows them."""
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": INSTRUCTION + prompt.text}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for prompt in speeches.prompts()[0][:256]
    ]


def textenv_rate(model: str, steps: int) -> Callable[[], float]:
    """Tokens per second of a learner that runs on from call to call."""
    policy, tokenizer = HuggingFacePolicy.from_pretrained(model), load_models_tokenizer(model)
    policy.pack_weights()
    envs = TextVectorEnv(
        ANSWERS,
        prompts=[{"tokens": tokenizer.encode(prompt)} for prompt in chats(tokenizer)],
        reward=lambda episodes: [even_share(e.tokens) for e in episodes],
        tokenizer=policy.tokenizer,
        max_new_tokens=LENGTH,
        group_size=GROUP,
    )
    learner = Learner(policy, envs, GRPO(), learning_rate=1e-6, optimizer=AdamW, n_episodes=ANSWERS)
    return lambda: median([learner.update().tokens_per_second for _ in range(steps)])


def trl_rate(model: str, steps: int) -> Callable[[], float]:
    """Tokens per second of TRL, the first step left out."""
    tokenizer = load_models_tokenizer(model)

    def run() -> float:
        record = train_with_trl(
            load_model(model),
            tokenizer,
            chats(tokenizer),
            even_share,
            steps=steps + 1,
            rows=ANSWERS,
            group_size=GROUP,
            answer_tokens=LENGTH,
            learning_rate=1e-6,
        )
        return rate_of_steps(record)

    return run


def measure(model: str, repeats: int, steps: int) -> Iterator[dict[str, Any]]:
    """The row of the table."""
    sides = {
        "textenv": textenv_rate(model, steps),
        "TRL": trl_rate(model, steps),
    }
    figures = interleaved(sides, repeats)
    yield {
        "model": model.rstrip("/").split("/")[-1],
        "textenv tokens/s": median(figures["textenv"]),
        "TRL GRPO tokens/s": median(figures["TRL"]),
        "ratio": ratio(figures, "textenv", "TRL"),
        "rounds": ", ".join(f"{r:.2f}" for r in ratios(figures, "textenv", "TRL")),
    }


def main() -> None:
    """Measure one model."""
    parser = command_line(__doc__)
    parser.add_argument("model", help="A name on the hub, or a folder.")
    parser.add_argument("--steps", type=int, default=1, help="Steps of a round.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments.model, arguments.repeats, arguments.steps)
    report("huggingface_step", rows, seed=0, repeats=arguments.repeats)


if __name__ == "__main__":
    main()

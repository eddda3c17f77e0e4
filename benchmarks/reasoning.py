"""Does writing steps before an answer help, and does RL on the answer alone make the steps better?

A problem is a list of the ten digits in random order and a digit to begin with: look up the digit
at that place, then the digit at the place that it names, eight times. Behind `=` the last digit
stands at once, behind `:` all eight, and the last one is the answer. A small GPT is fine-tuned on
equally many demonstrations of both, until half of its sampled answers with steps are right. GRPO
then sees problems alone, and is paid for the last digit: nothing says whether a step is right. The
same RL is also done on direct answers. All shares are on held-out problems: greedy, one sample at
temperature 1, and a vote over 16 samples (self-consistency). Chance is 0.1.

Run: taskset -c 0 python -m benchmarks.reasoning --threads 1
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from agents import GRPO, Learner
from agents.evaluation.prompting import Worked
from agents.evaluation.reasoning import compare_ways
from agents.supervised.sft import Example, sft_steps
from benchmarks.common import command_line, report
from policies import Policy, TransformerConfig, TransformerPolicy
from textenv import Episode, TextVectorEnv
from textenv.tokenizers import CharacterTokenizer

HOPS = 8
LONGEST = HOPS + 1
TOKENIZER = CharacterTokenizer("0123456789=:")
WAYS = {"direct": "=", "steps": ":"}
ROWS, GROUP = 128, 8
HELD_OUT, SAMPLES = 512, 16
DEMONSTRATIONS, BATCH, ENOUGH = 4_000, 64, 0.5


def problems(count: int, seed: int) -> list[Worked]:
    """Lists of digits with a beginning, and the digits on the way."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        digits, place = rng.permutation(10).tolist(), int(rng.integers(10))
        text = "".join(map(str, [*digits, place]))
        way = ""
        for _ in range(HOPS):
            place = digits[place]
            way += str(place)
        made.append(Worked(text, way[-1], way))
    return made


def last_digit(text: str) -> str:
    """The answer."""
    return text[-1:]


def right(episodes: Sequence[Episode]) -> list[float]:
    """1 for a right answer, whatever stands before it."""
    return [float(last_digit(e.text) == e.columns["answer"]) for e in episodes]


def fine_tuned(seed: int) -> tuple[TransformerPolicy, int]:
    """A GPT that has seen both ways to answer, and how many demonstrations it has read."""
    shape = TransformerConfig(TOKENIZER.vocab_size, 24, n_layer=2, n_head=4, n_embd=64)
    policy = TransformerPolicy(shape, tokenizer=TOKENIZER, seed=seed)
    examples = []
    for number, problem in enumerate(problems(DEMONSTRATIONS, 1_000 + seed)):
        mark, said = ("=", problem.answer) if number % 2 else (":", problem.reasoning)
        examples.append(Example(((problem.question + mark, False), (said, True))))
    asked = problems(128, 4_000)
    settings: dict[str, Any] = {"batch_size": BATCH, "learning_rate": 2e-3, "seed": seed}
    for step in sft_steps(policy, examples, epochs=20, **settings):
        if step.number % 20 == 0:
            said = policy.generate(
                [problem.question + WAYS["steps"] for problem in asked],
                LONGEST,
                batch_size=128,
                generator=np.random.default_rng(step.number),
            )
            share = np.mean([s[-1:] == p.answer for s, p in zip(said, asked, strict=True)])
            if share >= ENOUGH:
                break
    return policy, step.number * BATCH


def environment(way: str, seed: int) -> TextVectorEnv:
    """Problems that are paid by their last digit."""
    prompts = [
        {"prompt": problem.question + WAYS[way], "answer": problem.answer}
        for problem in problems(20_000, 2_000 + seed)
    ]
    return TextVectorEnv(
        ROWS,
        prompts=prompts,
        reward=right,
        tokenizer=TOKENIZER,
        group_size=GROUP,
        max_new_tokens=LONGEST,
    )


def reinforced(policy: TransformerPolicy, way: str, seed: int, tokens: int) -> Policy:
    """The policy after GRPO on one way to answer."""
    learner = Learner(
        policy.frozen_copy().requires_grad_(True),
        environment(way, seed),
        GRPO(n_epochs=2),
        learning_rate=lambda done: 1e-3 * (1 - done),
        n_episodes=2 * ROWS,
        seed=seed,
    )
    for update in learner.updates(tokens):
        if update.number % 20 == 0:
            print(f"seed {seed}  {way}  {update.tokens} tokens  {update.score:.3f}", flush=True)
    return learner.policy


def shares(policy: Policy, seed: int) -> dict[str, list[float]]:
    """Right answers to held-out problems, by way: greedy, one sample, vote."""
    rows = compare_ways(
        policy,
        problems(HELD_OUT, 3_000),
        {name: lambda question, mark=mark: question + mark for name, mark in WAYS.items()},  # type: ignore[misc]
        read=last_digit,
        samples=SAMPLES,
        max_new_tokens=LONGEST,
        batch_size=256,
        seed=seed,
    )
    return {row.way: [row.greedy.mean, row.sampled.mean, row.voted.mean] for row in rows}


def measure(arguments: Any) -> Iterator[dict[str, Any]]:
    """Rows of the table: before RL, and after it on each way."""
    for seed in arguments.seeds:
        begin = time.perf_counter()
        before, read = fine_tuned(seed)
        policies = {"fine-tuned": (before, [*WAYS])}
        for way in WAYS:
            policies[f"RL on {way}"] = (reinforced(before, way, seed, arguments.tokens), [way])
        for name, (policy, ways) in policies.items():
            found = shares(policy, seed)
            for way in ways:
                greedy, sampled, voted = found[way]
                yield {
                    "seed": seed,
                    "policy": name,
                    "answers": way,
                    "greedy": greedy,
                    "one sample": sampled,
                    f"vote of {SAMPLES}": voted,
                    "demonstrations": read,
                    "seconds": time.perf_counter() - begin,
                }


def main() -> None:
    """Train and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=60_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report("reasoning", measure(arguments), tokens=arguments.tokens)


if __name__ == "__main__":
    main()

"""The example of TRL's documentation of an environment class, learned: before and after GRPO.

TRL's page of its GRPO trainer shows a class for `environment_factory` that draws a number from 1 to
6 in `reset`, says "Increment the counter by N.", has one tool, `increment(step)`, and pays 1 in
`get_reward` if the counter stands at N. `IncrementEnv` below has that form and is handed to
`textenv.tools.from_trl_environment` as it is: neither prompts nor a reward are given beside it.

A network of random weights does not know what a call is. So it is first fine-tuned on conversations
that call the tool once or twice and then say "Done.". Half of them call it with any numbers, and
half with the number that was asked for. That is "before". GRPO then sees the
class's own reward alone. Both are measured on the same 1,000 starts, as the policy samples.

Run: taskset -c 0 python -m benchmarks.trl_environment --threads 1
"""

import random
import string
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import GRPO, Collector, Learner
from agents.evaluation.intervals import bootstrap_interval
from agents.supervised import Example, sft_steps
from benchmarks.common import command_line, report
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.tokenizers import CharacterTokenizer
from textenv.tools import from_trl_environment

LARGEST = 6
ROWS, GROUP, EXAMPLES, STARTS = 64, 8, 51_200, 1_000
RIGHT = 0.5
"""Share of the fine-tuning conversations that do what was asked for."""
QUESTION = "Increment the counter by {}."


class IncrementEnv:
    """A counter that is to be brought to a number; the form of TRL's example."""

    def reset(self, **kwargs: Any) -> str:
        """Draw the number, which the class keeps, and say it."""
        self.counter = 0
        self.target = random.randint(1, LARGEST)
        return QUESTION.format(self.target)

    def get_reward(self) -> float:
        """Whether the counter stands at the number."""
        return float(self.counter == self.target)

    def increment(self, step: int) -> int:
        """Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        """
        self.counter += step
        return self.counter


def make_envs(rows: int, group_size: int = 1) -> TextVectorEnv:
    """Conversations with counters."""
    return TextVectorEnv(
        rows,
        world=from_trl_environment(IncrementEnv),
        group_size=group_size,
        tokenizer=CharacterTokenizer(string.ascii_letters + string.digits + ' .,:_()="'),
        max_prompt_tokens=len(QUESTION),
        max_turn_tokens=16,
        max_turns=4,
        max_new_tokens=72,
    )


def legal(rng: np.random.Generator) -> Example:
    """A conversation with one or two calls; half of them are what was asked for."""
    asked = int(rng.integers(1, LARGEST + 1))
    steps = rng.integers(1, LARGEST + 1, size=rng.integers(1, 3)).tolist()
    if rng.random() < RIGHT:
        steps = [asked]
    pieces, counter = [(QUESTION.format(asked), False)], 0
    for step in steps:
        counter += step
        pieces += [(f"increment({step})", True), (str(counter), False)]
    return Example((*pieces, ("Done.", True)))


def successes(policy: TransformerPolicy) -> NDArray[np.float64]:
    """Whether each of the held-out counters ends where it should, shape (STARTS,)."""
    rollout = Collector(policy, make_envs(STARTS), seed=1_000_000).collect_episodes(STARTS)
    return rollout.scores.numpy().astype(np.float64)


def learn(seed: int, total_tokens: int) -> dict[str, Any]:
    """Fine-tune and train one policy; how often it succeeds before and after."""
    begin = time.process_time()
    envs = make_envs(ROWS, GROUP)
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=4, n_embd=64, seed=seed)
    rng = np.random.default_rng(seed)
    examples = [legal(rng) for _ in range(EXAMPLES)]
    for _ in sft_steps(policy, examples, epochs=2, batch_size=64, learning_rate=1e-2, seed=seed):
        pass
    before = successes(policy)
    learner = Learner(
        policy,
        envs,
        GRPO(),
        learning_rate=lambda done: 1e-3 * (1 - done),
        n_episodes=128,
        seed=seed,
    )
    for update in learner.updates(total_tokens):
        if update.number % 10 == 1:
            print(f"seed {seed}  {update.tokens:8d} tokens  {update.score:.3f}", flush=True)
    return {
        "seed": seed,
        "before": str(bootstrap_interval(before)),
        "after": str(bootstrap_interval(successes(policy))),
        "seconds": time.process_time() - begin,
    }


def main() -> None:
    """Train and print."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=200_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: Iterator[dict[str, Any]] = (learn(seed, arguments.tokens) for seed in arguments.seeds)
    report("trl_environment", rows, tokens=arguments.tokens)


if __name__ == "__main__":
    main()

"""Chains of arithmetic, answered step by step, and a small GPT that half knows how.

A problem is a chain such as `7+5-3*2=`, worked from left to right as on a pocket calculator. The
answer writes what each operation gives, in two digits, and the last result behind `#`:
`12;09#18`. All results are whole numbers from 0 to 20. The reward is 1 where the last number is
right and 0 elsewhere (`textenv.tasks.numeric_answer`): nothing says which operation went wrong.

Not a benchmark by itself: `benchmarks.trees` and others import it.
"""

import copy
import operator
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from agents import Collector, Rollout, losses
from agents.supervised.sft import Example, sft_steps
from policies import Policy, SeparateValue, TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.tasks import numeric_answer
from textenv.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer("0123456789+-*=;#")
LARGEST = 20
REWARD = numeric_answer()
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
DEMONSTRATIONS, BATCH, CHECKED = 100_000, 64, 512


@dataclass(frozen=True)
class Problem:
    """A chain of operations.

    Attributes:
        prompt: Such as `7+5-3*2=`.
        worked: The worked answer, such as `12;09#18`.
        answer: The last result, such as `18`.
    """

    prompt: str
    worked: str
    answer: str

    @property
    def record(self) -> dict[str, str]:
        """What an environment reads: `prompt` and `answer`."""
        return {"prompt": self.prompt, "answer": self.answer}


def longest_prompt(steps: int) -> int:
    """Tokens of a prompt of so many operations."""
    return 2 * steps + 2


def longest_answer(steps: int) -> int:
    """Tokens that a worked answer may have: two digits and a sign for each step, and the end."""
    return 3 * steps


def problems(count: int, steps: int, seed: int, held_out: bool = False) -> list[Problem]:
    """Problems of `steps` operations; short ones may come more than once.

    One in eight of all problems is held out: which ones depends on their text alone, so that
    training never meets a held-out one, whatever the seeds.

    Args:
        count: Number of problems.
        steps: Operations of each.
        seed: Seed of the draw.
        held_out: Draw from those that are held out, instead of from the others.
    """
    drawn = _chains(np.random.default_rng([seed, steps, held_out]), steps)
    return list(islice((p for p in drawn if _is_held_out(p.prompt) == held_out), count))


def _is_held_out(prompt: str) -> bool:
    return zlib.crc32(prompt.encode()) % 8 == 0


def _chains(rng: np.random.Generator, steps: int) -> Iterator[Problem]:
    while True:
        value = int(rng.integers(1, 10))
        text, results = str(value), []
        for _ in range(steps):
            # An operation first, then an operand: otherwise hardly any would be a product.
            possible = {
                sign: [n for n in range(1, 10) if 0 <= does(value, n) <= LARGEST]
                for sign, does in OPERATIONS.items()
            }
            signs = [sign for sign, operands in possible.items() if operands]
            sign = signs[rng.integers(len(signs))]
            operand = possible[sign][rng.integers(len(possible[sign]))]
            value = OPERATIONS[sign](value, operand)
            text += f"{sign}{operand}"
            results.append(f"{value:02d}")
        worked = ";".join(results[:-1]) + "#" + results[-1]
        yield Problem(f"{text}=", worked, results[-1])


def environment(asked: Sequence[Problem], steps: int, rows: int, **options: Any) -> TextVectorEnv:
    """An environment of these problems, paid by the final number; `options` are the class's."""
    return TextVectorEnv(
        rows,
        prompts=[problem.record for problem in asked],
        reward=REWARD,
        tokenizer=TOKENIZER,
        max_prompt_tokens=longest_prompt(steps),
        max_new_tokens=longest_answer(steps),
        **options,
    )


def success(policy: Policy, asked: Sequence[Problem], steps: int, seed: int = 0) -> float:
    """Share of right answers, one to each problem, at temperature 1."""
    return sampled(policy, asked, steps, seed).scores.mean().item()


def sampled(policy: Policy, asked: Sequence[Problem], steps: int, seed: int = 0) -> Rollout:
    """One answer to each problem, at temperature 1."""
    envs = environment(asked, steps, len(asked))
    return Collector(policy, envs, seed=seed).collect_episodes(len(asked))


def fine_tuned(
    steps: int, seed: int = 0, *, enough: float = 0.4, n_embd: int = 64
) -> TransformerPolicy:
    """A GPT of two layers that reads worked answers until `enough` of its own are right.

    Success is measured at temperature 1, on problems that it has not read. 4 steps take some 500
    batches of 64 worked answers.

    Args:
        steps: Operations of a problem.
        seed: Seed of the weights and of the problems.
        enough: Share of right answers at which it stops.
        n_embd: Width of the network.

    Raises:
        AssertionError: It has read all worked answers, and too few answers are right.
    """
    longest = longest_prompt(steps) + longest_answer(steps)
    shape = TransformerConfig(TOKENIZER.vocab_size, longest, n_layer=2, n_head=4, n_embd=n_embd)
    policy = TransformerPolicy(shape, tokenizer=TOKENIZER, seed=seed)
    worked = problems(DEMONSTRATIONS, steps, seed)
    examples = [Example(((p.prompt, False), (p.worked, True))) for p in worked]
    asked = problems(CHECKED, steps, 1_000 + seed, held_out=True)
    settings: dict[str, Any] = {"batch_size": BATCH, "learning_rate": 5e-3, "seed": seed}
    for step in sft_steps(policy, examples, **settings):
        if step.number % 20 == 0 and success(policy, asked, steps, step.number) >= enough:
            return policy
    raise AssertionError(f"after {DEMONSTRATIONS} worked answers too few of its own are right")


def with_critic(
    policy: TransformerPolicy, steps: int, seed: int = 0, *, rounds: int = 60
) -> SeparateValue:
    """The policy with a critic of its own that says how likely an answer will be right.

    The critic begins as a copy of the policy and is fitted to the scores of answers that the
    policy gives, at every token of each. The policy stays as it is.

    Args:
        policy: Such as `fine_tuned` gives.
        steps: Operations of a problem.
        seed: Seed of the problems and of the answers.
        rounds: Times 512 answers. With 60 of four steps the critic explains 2% of the variance of
            the scores at the first token and 10% at the last.
    """
    both = SeparateValue(policy, copy.deepcopy(policy))
    optimizer = torch.optim.Adam(both.critic.parameters(), 1e-3)
    for number in range(rounds):
        asked = problems(CHECKED, steps, 100_000 + 1_000 * seed + number)
        answers = sampled(policy, asked, steps, number)
        for rows in torch.arange(CHECKED).split(BATCH):
            some = answers.select(rows)
            values = both.critic.outputs(some.tokens, some.mask).values
            loss = losses.masked_mean((values - some.scores[:, None]) ** 2, some.mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return both

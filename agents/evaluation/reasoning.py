"""Whether writing the way to an answer helps: direct, with steps, and by a vote over several ways.

Self-consistency (Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language
Models", 2022): sample several reasoned answers, read the final answer of each, and take the one
that most of them reach. Wrong ways differ; right ones meet.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from agents.evaluation.intervals import Interval, bootstrap_interval
from agents.evaluation.prompting import Worked, extract_answer
from policies import Policy, tokenizer_of

Read = Callable[[str], str | None]
"""The final answer in a text; None if there is none."""


class Vote(NamedTuple):
    """What most of several answers say.

    Attributes:
        answer: The answer that was read most often; None if none could be read.
        share: Its share of all answers, unreadable ones included.
        answers: What was read of each.
    """

    answer: str | None
    share: float
    answers: tuple[str | None, ...]


def majority(answers: Sequence[str | None]) -> Vote:
    """The answer that occurs most often; of equals the one that occurs first.

    >>> majority(["7", None, "8", "7"])
    Vote(answer='7', share=0.5, answers=('7', None, '8', '7'))
    """
    counted = Counter(answer for answer in answers if answer is not None)
    if not counted:
        return Vote(None, 0.0, tuple(answers))
    ((answer, times),) = counted.most_common(1)
    return Vote(answer, times / len(answers), tuple(answers))


def self_consistency(
    policy: Policy,
    prompts: Sequence[str],
    read: Read = extract_answer,
    *,
    samples: int = 8,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    **sampling: Any,
) -> list[Vote]:
    """A vote over several sampled answers to each prompt, which is encoded once for them.

    Args:
        policy: The policy that answers; its own random numbers are not used.
        prompts: Prompts that ask for reasoning.
        read: Reads the final answer; answers count as equal if what is read is equal.
        samples: Answers to each prompt.
        temperature: Logits are divided by it; at 0 all answers are the same one.
        max_new_tokens: Token budget of an answer.
        seed: Seed of the sampling.
        **sampling: Other arguments of `policies.generate`, such as `stop_strings`.
    """
    texts = policy.generate(
        prompts,
        max_new_tokens,
        n=samples,
        temperature=temperature,
        generator=np.random.default_rng(seed),
        **sampling,
    )
    said = [read(text) for text in texts]
    return [majority(said[begin : begin + samples]) for begin in range(0, len(said), samples)]


@dataclass(frozen=True)
class Success:
    """How often answers that were asked for in one way are right, with 95% intervals.

    Attributes:
        way: Name of the way.
        greedy: Of the likeliest answer.
        sampled: Of one sampled answer, on average.
        voted: Of the answer that most of the samples give.
        tokens: Mean length of a sampled answer in tokens: what the way costs.
    """

    way: str
    greedy: Interval
    sampled: Interval
    voted: Interval
    tokens: float


def compare_ways(
    policy: Policy,
    questions: Sequence[Worked],
    ways: Mapping[str, Callable[[str], str]],
    *,
    read: Read = extract_answer,
    samples: int = 8,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    **sampling: Any,
) -> list[Success]:
    """Ask the same questions in several ways, such as directly and step by step.

    Args:
        policy: The policy that answers; it must have a tokenizer.
        questions: Questions with their answers; an answer is right if it reads the same.
        ways: From a question to its prompt, by name; see `agents.evaluation.prompting`.
        read: Reads the final answer.
        samples: Sampled answers to each question.
        temperature: Of the samples.
        max_new_tokens: Token budget of an answer.
        seed: Seed of the sampling.
        **sampling: Other arguments of `policies.generate`.
    """
    tokenizer = tokenizer_of(policy)
    found = []
    for name, way in ways.items():
        prompts = [way(question.question) for question in questions]
        lengths: list[int] = []

        def measured(text: str, lengths: list[int] = lengths) -> str | None:
            lengths.append(len(tokenizer.encode(text)))
            return read(text)

        likeliest = policy.generate(prompts, max_new_tokens, temperature=0, **sampling)
        votes = self_consistency(
            policy,
            prompts,
            measured,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            **sampling,
        )
        right = [question.answer for question in questions]
        greedy = [read(text) == answer for text, answer in zip(likeliest, right, strict=True)]
        voted = [vote.answer == answer for vote, answer in zip(votes, right, strict=True)]
        sampled = [
            np.mean([one == answer for one in vote.answers])
            for vote, answer in zip(votes, right, strict=True)
        ]
        found.append(
            Success(
                name,
                bootstrap_interval(greedy),
                bootstrap_interval(sampled),
                bootstrap_interval(voted),
                float(np.mean(lengths)),
            )
        )
    return found


def ways_table(rows: Sequence[Success], title: str | None = None) -> Table:
    """The rows as a table that rich prints."""
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for heading in ("greedy", "one sample", "vote", "tokens an answer"):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = (row.greedy, row.sampled, row.voted)
        table.add_row(row.way, *map(str, shares), f"{row.tokens:.1f}")
    return table

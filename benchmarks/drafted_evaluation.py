"""An earlier checkpoint's answers as drafts of a later one's, against plain steps.

Both answer with the same random numbers. `--numbers other` asks what a rollout gains from old
answers instead: a draft is kept where the choice by new numbers is the draft's, as a point mass.
The later checkpoint is the earlier one after a step like Adam's first, along the signs of the
gradient of a text's likelihood, scaled to a distance KL(earlier || later) an answer. The answers
must be those without drafts, but for choices within rounding: answers that differ are counted.

Run: python -m benchmarks.drafted_evaluation --threads 1 [--folder path/to/a/published/model]
"""

import copy
import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.collector import collector_from, in_order
from agents.evaluation.answers import kept_of_drafts
from benchmarks.common import Ids, command_line, interleaved, make_policy, ratio, report, timed
from policies import Policy
from policies.checkpoint import open_policy
from policies.observations import padded_rows
from policies.sampling import sample_gumbel
from textenv import Prompt, TextVectorEnv
from textenv.starts import Start

DISTANCES = (0.02, 0.2, 2.0)
QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Why is the sky blue?",
    "Give me three tips for learning to cook.",
    "Explain what a prime number is.",
    "Tell me a story about a fox.",
    "How do I remove a stain from a shirt?",
    "What should I read about the history of Rome?",
)


def model_s() -> tuple[Policy, list[Prompt], list[list[int]]]:
    """Model S with larger embeddings, whose answers are neither uniform nor all alike."""
    policy, rng = make_policy("S"), np.random.default_rng(0)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(3)
    texts = rng.integers(0, 4096, (40, 24)).tolist()
    return policy, [Prompt(" ".join(map(str, text))) for text in texts[:32]], texts[32:]


def published(folder: Path) -> tuple[Policy, list[Prompt], list[list[int]]]:
    """A model of Hugging Face, questions for it, and a text to step along."""
    policy = open_policy(folder)
    assert policy.tokenizer is not None
    asked = [f"{question} ({number})" for number in range(4) for question in QUESTIONS]
    told = [policy.tokenizer.encode(str(text)) for text in (__doc__, report.__doc__)]
    return policy, [Prompt(text) for text in asked], told


def direction(policy: Policy, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The sign of each parameter's gradient of the likelihood of `texts`: Adam's first step."""
    tokens = padded_rows(texts, policy.pad_token)
    mask = tokens != policy.pad_token
    mask[:, 0] = False
    policy.zero_grad()
    policy.outputs(tokens, mask).logprobs.sum().backward()
    signs = [torch.zeros_like(x) if x.grad is None else x.grad.sign() for x in policy.parameters()]
    policy.zero_grad()
    return signs


@torch.inference_mode()
def choices_of(policy: Policy, tokens: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities of all tokens at the chosen places, (N, V)."""
    lengths = (tokens != policy.pad_token).sum(1)
    return policy.choices(policy.hidden_before(tokens, mask, lengths)).log_softmax(-1)


def moved(
    policy: Policy, signs: list[Tensor], tokens: Tensor, mask: Tensor, nats: float
) -> tuple[Policy, float]:
    """The policy at this distance on its own answers, and the distance."""
    before, scale, found = choices_of(policy, tokens, mask), 3e-5, math.nan
    later = copy.deepcopy(policy)
    for _ in range(8):
        with torch.no_grad():
            for own, old, sign in zip(later.parameters(), policy.parameters(), signs, strict=True):
                own.copy_(old + scale * sign)
        after = choices_of(later, tokens, mask)
        found = float((before.exp() * (before - after).nan_to_num()).sum()) / len(tokens)
        if abs(math.log(found / nats)) < 0.1:
            break
        scale *= (nats / found) ** 0.5  # the distance grows with the square of the step
    return later, found


class Played:
    """Answers of a policy, and what was counted."""

    def __init__(
        self,
        policy: Policy,
        envs: TextVectorEnv,
        prompts: Sequence[Prompt],
        drafts: Sequence[NDArray[np.int64]] | None = None,
        seed: int = 1,
    ):
        uniforms = np.random.default_rng(seed).random((len(prompts), envs.max_new_tokens))
        starts = [Start(p, draw_seed=k, episode_seed=k) for k, p in enumerate(prompts)]
        collector = collector_from(policy, envs, starts, uniforms=uniforms, sampler=sample_gumbel)
        if drafts is not None:
            collector.read_ahead(dict(enumerate(drafts)))
        self.rollout = in_order(collector.collect_episodes(len(starts)))
        pairs = zip(self.rollout.tokens, self.rollout.mask, strict=True)
        self.answers = [tokens[mask].numpy() for tokens, mask in pairs]


def _seconds(*arguments: Any) -> float:
    return timed(lambda: Played(*arguments))


def measured(
    name: str,
    made: tuple[Policy, list[Prompt], list[list[int]]],
    rows: Sequence[int],
    distances: Sequence[float],
    tokens: int,
    answers: int,
    repeats: int,
    numbers: str,
) -> Iterator[dict[str, Any]]:
    """A row for each distance and number of rows."""
    policy, prompts, texts = made

    def envs_of(count: int) -> TextVectorEnv:
        return TextVectorEnv(
            count,
            prompts=prompts,
            reward=lambda episodes: [0.0] * len(episodes),
            tokenizer=policy.tokenizer,
            max_new_tokens=tokens,
            stop_tokens=() if isinstance(policy.tokenizer, Ids) else None,
        )

    signs = direction(policy, texts)
    few = Played(policy, envs_of(8), prompts[:8]).rollout
    for nats in distances:
        later, found = moved(policy, signs, few.tokens, few.mask, nats)
        for count in rows:
            envs, asked = envs_of(count), prompts[: max(count, answers)]
            drafts = Played(policy, envs, asked, seed=1 if numbers == "same" else 2).answers
            plain, drafted = Played(later, envs, asked), Played(later, envs, asked, drafts)
            sides = {
                "plain": partial(_seconds, later, envs, asked, None),
                "drafted": partial(_seconds, later, envs, asked, drafts),
            }
            seconds = interleaved(sides, repeats)
            yield {
                "model": name,
                "nats": f"{found:.3f}",
                "numbers": numbers,
                "rows": count,
                "kept": f"{kept_of_drafts(plain.answers, drafts):.2f}",
                "plain s": f"{statistics.median(seconds['plain']):.2f}",
                "drafted s": f"{statistics.median(seconds['drafted']):.2f}",
                "drafted/plain": f"{ratio(seconds, 'drafted', 'plain'):.2f}",
                "answers that differ": sum(
                    not np.array_equal(a, b)
                    for a, b in zip(plain.answers, drafted.answers, strict=True)
                ),
            }


def main() -> None:
    """The table."""
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, help="a published model; model S if left out")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--distances", nargs="+", type=float, default=list(DISTANCES))
    parser.add_argument(
        "--numbers",
        choices=["same", "other"],
        default="same",
        help="of the drafts; with other ones a draft is kept as a point mass, as in rollouts",
    )
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--answers", type=int, default=8, help="at least; one for each row if more")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.folder
    rows = measured(
        "S" if folder is None else folder.name,
        model_s() if folder is None else published(folder),
        arguments.rows,
        arguments.distances,
        arguments.tokens,
        arguments.answers,
        arguments.repeats,
        arguments.numbers,
    )
    report("drafted evaluation", rows, tokens=arguments.tokens, repeats=arguments.repeats)


if __name__ == "__main__":
    main()

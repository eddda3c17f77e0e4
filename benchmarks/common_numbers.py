"""How narrow is the interval of the difference between two checkpoints, and does it cover?

A small GPT learns characters of tinyshakespeare, then GRPO trains it on one of two rewards: the
share of vowels, or 1 for an answer with " the " or " my " in it and 0 for any other. The first
checkpoint and one about 0.02, 0.2 and 2 nats an answer away answer the same held-out prompts. For
each estimate of the difference of their mean scores: the width of its interval, as a share of that
of `difference` on independent answers. The width falls with the root of the number of prompts, so
half the width is a quarter of the prompts.

Then the same distances on the 40 listed answers of `benchmarks.exact`, where the true difference is
known: how often 95% intervals hold it, and whether 20,000 answers have the law of their checkpoint.

Run: python -m benchmarks.common_numbers INPUT.txt --threads 1
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare

from agents import Collector, Learner, algorithms
from agents.collector import collector_from, in_order
from agents.evaluation import evaluate, mean_interval
from agents.evaluation.differences import Pairs, balanced, difference, fitted
from agents.evaluation.numbers import numbers_of
from agents.supervised import Fitting, adamw, pretraining_steps
from benchmarks import exact as listed
from benchmarks.common import command_line, report
from policies import Policy, TransformerConfig, TransformerPolicy
from policies.sampling import Sampler, sample, sample_gumbel
from textenv import Episode, Prompt, TextVectorEnv
from textenv.starts import Start
from textenv.testing import exact
from textenv.tokenizers import CharacterTokenizer

PROMPT, ROWS, PROMPTS = 12, 128, 1024
DISTANCES = (0.02, 0.2, 2.0)
RATES = {16: 1e-5, 64: 5e-6}
"""Learning rates by the length of answers, doubled behind each distance: small, to stop near it."""
LONGEST = 64
REPEATS, PAIRS, DRAWN = 2_000, 256, 20_000

Estimate = Callable[[Pairs], NDArray[np.float64]]
ESTIMATES: dict[str, Estimate] = {
    "difference": difference,
    "balanced": balanced,
    "fitted": fitted,
}


def vowels(episode: Episode) -> float:
    """The share of vowels."""
    return sum(letter in "aeiou" for letter in episode.text) / len(episode.text)


def has_a_word(episode: Episode) -> float:
    """1 with one of two words, else 0."""
    return float(" the " in episode.text or " my " in episode.text)


REWARDS = {"vowels": vowels, "word": has_a_word}


@dataclass(frozen=True)
class Corpus:
    """Characters to learn, and prompts from the part that is held out."""

    text: str
    tokenizer: CharacterTokenizer

    @property
    def learned(self) -> int:
        """How many characters are learned from."""
        return int(0.9 * len(self.text))

    def prompts(self, count: int, seed: int, held_out: bool = True) -> list[str]:
        """Places of the text, drawn at random."""
        begin, end = (self.learned, len(self.text)) if held_out else (0, self.learned)
        places = np.random.default_rng(seed).integers(begin, end - PROMPT, count)
        return [self.text[place : place + PROMPT] for place in places]

    def environment(self, reward: str, length: int, prompts: list[str], **options: Any) -> Any:
        """Answers of `length` characters; nothing ends one earlier."""
        score = REWARDS[reward]
        return TextVectorEnv(
            prompts=prompts,
            reward=lambda episodes: [score(episode) for episode in episodes],
            tokenizer=self.tokenizer,
            max_prompt_tokens=PROMPT,
            max_new_tokens=length,
            stop_tokens=(),
            **options,
        )


def pretrained(corpus: Corpus, steps: int = 500) -> TransformerPolicy:
    """A GPT of two layers that has read 500 batches of 16 windows of 64 characters."""
    shape = TransformerConfig(corpus.tokenizer.vocab_size, PROMPT + LONGEST, 2, 4, 96)
    policy = TransformerPolicy(shape, tokenizer=corpus.tokenizer, seed=0)
    stream = np.array(corpus.tokenizer.encode(corpus.text[: corpus.learned]), dtype=np.uint16)
    fitting = Fitting(policy, steps=steps, learning_rate=3e-3, optimizer=partial(adamw, beta2=0.99))
    sizes: dict[str, Any] = {"total_tokens": steps * 16 * 64, "window": 64, "batch_size": 16}
    for _ in pretraining_steps(policy, stream, **sizes, seed=0, fitting=fitting):
        pass
    return policy


def checkpoints(
    corpus: Corpus, base: TransformerPolicy, reward: str, length: int
) -> Iterator[tuple[float, Policy]]:
    """The distances that training passes, with the policy there."""
    policy, reference = copy.deepcopy(base), base.frozen_copy()
    prompts = corpus.prompts(2_000, seed=1, held_out=False)
    envs = corpus.environment(reward, length, prompts, num_envs=64, group_size=8)
    asked = [Prompt(text) for text in corpus.prompts(128, seed=3)]
    for number, distance in enumerate(DISTANCES):
        learner = Learner(
            policy,
            envs,
            algorithms.GRPO(),
            reference=reference,
            learning_rate=RATES[length] * 2**number,
            n_episodes=64,
            seed=number,
        )
        found = 0.0
        while found < 0.95 * distance:
            learner.update()
            reached = evaluate(policy, envs, asked, reference=reference)
            found = nats(reached.logprobs - reached.ref_logprobs)
        yield distance, policy


def nats(ratios: NDArray[np.float64]) -> float:
    """KL(b || a) by log p_b - log p_a of b's answers: the mean of r - 1 - log r, r = p_a / p_b.

    Schulman, "Approximating KL Divergence", 2020; the mean of the ratios alone is too noisy for
    short distances.
    """
    return float((np.exp(-ratios) - 1 + ratios).mean())


# ---------------------------------------------------------------- widths


@torch.inference_mode()
def answered(
    policy: Policy, envs: Any, asked: list[Prompt], seed: int, sampler: Sampler
) -> tuple[Any, NDArray[np.float64]]:
    """A rollout of one answer to each prompt, and its scores."""
    numbers = numbers_of(asked, seed)
    uniforms = np.stack([generator.random(envs.max_new_tokens) for generator in numbers])
    starts = [Start(prompt, draw_seed=n, episode_seed=n) for n, prompt in enumerate(asked)]
    collector = collector_from(policy, envs, starts, uniforms=uniforms, sampler=sampler)
    rollout = in_order(collector.collect_episodes(len(asked)))
    return rollout, rollout.scores.double().numpy()


@torch.inference_mode()
def log_ratios(a: Policy, b: Policy, rollout: Any) -> NDArray[np.float64]:
    """Of each answer log p_b - log p_a."""
    found = np.zeros(len(rollout))
    for rows in torch.arange(len(rollout)).split(ROWS):
        some = rollout.select(rows)
        both = [policy.outputs(some.tokens, some.mask).logprobs.double() for policy in (a, b)]
        found[rows] = (both[1] - both[0]).sum(1).numpy()
    return found


def widths(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """A row for each length, reward and distance."""
    base = pretrained(corpus)
    asked = [Prompt(text) for text in corpus.prompts(PROMPTS, seed=2)]
    for length in RATES:
        for reward in REWARDS:
            envs = corpus.environment(reward, length, ["unused"], num_envs=ROWS)
            first = {s: answered(base, envs, asked, 0, s) for s in (sample, sample_gumbel)}
            for distance, policy in checkpoints(corpus, base, reward, length):
                ways = {
                    "independent": (first[sample], sample, 1),
                    "inverse CDF": (first[sample], sample, 0),
                    "Gumbel": (first[sample_gumbel], sample_gumbel, 0),
                }
                found = {}
                for name, ((rollout_a, scores_a), sampler, seed) in ways.items():
                    rollout_b, scores_b = answered(policy, envs, asked, seed, sampler)
                    ratios = (log_ratios(base, policy, r) for r in (rollout_a, rollout_b))
                    found[name] = Pairs(scores_a, scores_b, *ratios)
                yield {
                    "tokens": length,
                    "reward": reward,
                    "nats": distance,
                    **figures(found),
                }


def figures(found: dict[str, Pairs]) -> dict[str, Any]:
    """Distance and difference as they are, and the widths beside that of independent answers."""
    unit = difference(found["independent"]).std()
    row: dict[str, Any] = {
        "measured": round(nats(found["independent"].ratios_b), 3),
        "gain": f"{fitted(found['independent']).mean():.4f}",
        "correlation": float(
            np.corrcoef(found["independent"].scores_b, found["independent"].ratios_b)[0, 1]
        ),
    }
    for way, pairs in found.items():
        for name, estimate in ESTIMATES.items():
            row[f"{way}, {name}"] = float(estimate(pairs).std() / unit)
    return row


# ---------------------------------------------------------------- coverage


class Tree:
    """The beginnings of the listed answers, and what follows each token."""

    def __init__(self) -> None:
        answers = [
            tuple(tokens[mask].tolist())
            for tokens, mask in zip(listed.TOKENS, listed.MASK, strict=True)
        ]
        begun = {answer[:place] for answer in answers for place in range(len(answer))}
        self.beginnings = sorted(begun, key=lambda text: (len(text), text))
        place = {text: number for number, text in enumerate(self.beginnings)}
        ends = {answer: -1 - number for number, answer in enumerate(answers)}
        # Numbers of beginnings; of an answer, -1 less its number.
        self.next = np.array(
            [
                [(place | ends).get((*text, token), 0) for token in range(listed.LETTERS + 1)]
                for text in self.beginnings
            ]
        )

    @torch.inference_mode()
    def logits(self, policy: Policy) -> torch.Tensor:
        """Of every beginning, (beginnings, V)."""
        rows = [[0, *text] for text in self.beginnings]  # behind the prompt "a"
        table = [policy.choices(policy.last_hidden([row])) for row in rows]
        return torch.cat(table)

    def drawn(
        self, logits: torch.Tensor, uniforms: NDArray[np.float64], sampler: Sampler
    ) -> NDArray[np.int64]:
        """Numbers of answers, (n,), by uniform numbers (n, steps)."""
        at = np.zeros(len(uniforms), np.int64)
        for step in range(listed.STEPS):
            running = np.flatnonzero(at >= 0)
            rows = logits[torch.from_numpy(at[running])]
            tokens, _ = sampler(rows, uniforms[running, step])
            at[running] = self.next[at[running], tokens]
        return -1 - at


def oracle_checkpoints() -> Iterator[tuple[float, Policy, Policy]]:
    """The distances that GRPO passes on the oracle: before, and there."""
    setting = listed.FREE["GRPO"]
    before = listed.make_policy(0)
    own, policy = listed.answer_logprobs(before), copy.deepcopy(before)
    envs = TextVectorEnv(setting.answers, group_size=listed.GROUP, **listed.OPTIONS)
    learner = Learner(
        policy, envs, setting.algorithm, learning_rate=3e-4, n_episodes=setting.answers, seed=0
    )
    for distance in DISTANCES:
        while exact.kl_divergence(listed.answer_logprobs(policy), own) < distance:
            learner.collector = Collector(policy, envs, seed=learner.updates_done)
            learner.update()
        yield distance, before, policy


def coverage() -> Iterator[dict[str, Any]]:
    """A row for each distance and way to draw."""
    tree, rewards = Tree(), listed.ANSWERS.rewards
    for distance, a, b in oracle_checkpoints():
        logprobs = [listed.answer_logprobs(policy) for policy in (a, b)]
        ratio = logprobs[1] - logprobs[0]
        truth = exact.expected_return(logprobs[1], rewards) - exact.expected_return(
            logprobs[0], rewards
        )
        tables = [tree.logits(policy) for policy in (a, b)]
        generator = np.random.default_rng(int(100 * distance))
        shape = (REPEATS * PAIRS, listed.STEPS)
        numbers, others = generator.random(shape), generator.random(shape)
        for way, sampler, second in (
            ("independent", sample, others),
            ("inverse CDF", sample, numbers),
            ("Gumbel", sample_gumbel, numbers),
        ):
            answers = [
                tree.drawn(table, uniforms, sampler)
                for table, uniforms in zip(tables, (numbers, second), strict=True)
            ]
            law = [
                p_value(drawn[:DRAWN], logprob)
                for drawn, logprob in zip(answers, logprobs, strict=True)
            ]
            row: dict[str, Any] = {"nats": distance, "numbers": way, "gain": f"{truth:.4f}"}
            for name, estimate in ESTIMATES.items():
                held, total = 0, 0.0
                for chosen in np.stack(answers, axis=1).reshape(REPEATS, PAIRS, 2):
                    pairs = Pairs(*rewards[chosen].T, *ratio[chosen].T)
                    found = mean_interval(estimate(pairs))
                    held += found.low <= truth <= found.high
                    total += found.mean
                row[name] = f"{100 * held / REPEATS:.1f}%"
                row[f"{name}, mean"] = f"{total / REPEATS:.4f}"
            row |= {"law of a, p": law[0], "law of b, p": law[1]}
            yield row


def p_value(drawn: NDArray[np.int64], logprobs: NDArray[np.float64]) -> float:
    """Of the chi-square test; answers expected less than five times are taken together."""
    expected = np.exp(logprobs) / np.exp(logprobs).sum() * len(drawn)
    counts = np.bincount(drawn, minlength=len(expected)).astype(float)
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    if pooled[1][-1] == 0:
        pooled = [x[:-1] for x in pooled]
    return float(chisquare(*pooled).pvalue)


def main() -> None:
    """Print both tables."""
    parser = command_line(__doc__ or "")
    parser.add_argument("text", type=Path, help="tinyshakespeare's input.txt")
    parser.add_argument("--only", choices=["widths", "coverage"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only != "coverage":
        text = arguments.text.read_text(encoding="utf-8")
        corpus = Corpus(text, CharacterTokenizer.of_texts([text]))
        report("common_numbers: widths", widths(corpus), prompts=PROMPTS, seed=0)
    if arguments.only != "widths":
        report("common_numbers: coverage", coverage(), repeats=REPEATS, pairs=PAIRS, seed=0)


if __name__ == "__main__":
    main()

"""What a policy is worth on prompts it was not trained on, and how sure that is.

Two policies are compared on the same prompts, prompt by prompt: what is common to both cancels, so
the interval of the difference is narrower than those of the two means. Intervals are percentiles
of the bootstrap (Efron, 1979): scores of texts pile up at a few values, and nothing is assumed
about their distribution. They cover the choice of prompts and the chance of sampling, not that of
training again with another seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from agents.samples import Sample
from policies import Policy
from textenv import Prompt, TextVectorEnv


class Interval(NamedTuple):
    """A mean and the bounds within which it is known."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Evaluation:
    """Answers to n prompts, one each, in the order of the prompts.

    Attributes:
        samples: Prompts, answers and scores.
        answers: The answers' ids, a stop token included.
        logprobs: Log-probability of each answer under the policy, shape (n,).
        ref_logprobs: The same under the reference, shape (n,); NaN without a reference.
    """

    samples: Sequence[Sample]
    answers: Sequence[NDArray[np.int64]]
    logprobs: NDArray[np.float64]
    ref_logprobs: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Sum of the environment's rewards for each answer, shape (n,)."""
        return np.array([sample.score for sample in self.samples])

    @property
    def num_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(len(answer) for answer in self.answers)

    @property
    def tokens_per_answer(self) -> float:
        """Mean length of the answers."""
        return self.num_tokens / len(self.answers)

    @property
    def kl_per_answer(self) -> float:
        """KL(policy || reference) of whole answers in nats, estimated by log(p / q)."""
        return float((self.logprobs - self.ref_logprobs).mean())

    @property
    def kl_per_token(self) -> float:
        """The same for each chosen token."""
        return float((self.logprobs - self.ref_logprobs).sum() / self.num_tokens)

    @property
    def reference_perplexity(self) -> float:
        """How surprised the reference is by each token of the answers: does it still read so?"""
        return math.exp(-float(self.ref_logprobs.sum()) / self.num_tokens)

    @property
    def distinct_2(self) -> float:
        """Different pairs of neighbouring tokens, as a share of all of them (Li et al., 2016).

        A policy that has collapsed to a few phrases comes close to 0. The share falls with the
        number of answers, so only equally many can be compared.
        """
        pairs = [pair for answer in self.answers for pair in pairwise(answer.tolist())]
        return len(set(pairs)) / len(pairs) if pairs else math.nan

    def numbers(self) -> dict[str, float]:
        """All of these by name, the bounds of the mean score among them."""
        score = bootstrap_interval(self.scores)
        return {
            "score": score.mean,
            "score_low": score.low,
            "score_high": score.high,
            "tokens_per_answer": self.tokens_per_answer,
            "kl_per_answer": self.kl_per_answer,
            "kl_per_token": self.kl_per_token,
            "reference_perplexity": self.reference_perplexity,
            "distinct_2": self.distinct_2,
        }


@torch.inference_mode()
def evaluate(
    policy: Policy,
    envs: TextVectorEnv,
    prompts: Sequence[Prompt],
    *,
    reference: Policy | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_answers: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Answer each of `prompts` once in `envs`, which also scores the answers.

    Args:
        policy: Who answers; its own generator is left alone.
        envs: Any number of rows, in SAME_STEP mode; its own prompts are not used.
        prompts: At least one.
        reference: For the KL.
        temperature: Of the sampling, and so of the log-probabilities.
        seed: Of the sampling: the same policy, prompts and seed give the same answers.
        on_answers: Called with the number of answers after each batch.

    Raises:
        ValueError: There are no prompts, or `envs` is in another autoreset mode.
        PromptError: A prompt cannot be used in `envs`.
        RewardError: The reward failed.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer")
    if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
        raise ValueError(f"envs has the autoreset mode {envs.autoreset_mode}; it must be SAME_STEP")
    generator = np.random.default_rng(seed)
    samples: list[Sample] = []
    answers: list[NDArray[np.int64]] = []
    logprobs: list[NDArray[np.float64]] = []
    ref_logprobs: list[NDArray[np.float64]] = []
    for begin in range(0, len(prompts), envs.num_envs):
        some = prompts[begin : begin + envs.num_envs]
        batch = _answer(policy, envs, some, temperature, generator)
        samples += batch.samples
        answers += [row[chosen] for row, chosen in zip(batch.tokens, batch.mask, strict=True)]
        for scorer, sums in ((policy, logprobs), (reference, ref_logprobs)):
            sums.append(_answer_logprobs(scorer, batch, temperature))
        on_answers(len(samples))
    return Evaluation(samples, answers, np.concatenate(logprobs), np.concatenate(ref_logprobs))


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of `values`, shape (n,), and its percentile bootstrap interval.

    For a paired comparison pass the differences.

    >>> print(bootstrap_interval([1.0, 1.0, 1.0]))
    1.000 [1.000, 1.000]

    Raises:
        ValueError: There are no values, or they are no flat list.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"values must be a flat list of at least one number, got shape {x.shape}")
    generator = np.random.default_rng(seed)
    # One resample at a time: all at once would take resamples * n numbers.
    means = [x[generator.integers(0, len(x), len(x))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(x.mean()), float(low), float(high))


class _Batch(NamedTuple):
    """Answers to k prompts.

    Attributes:
        samples: As in `Evaluation`.
        tokens: Prompt and answer, right-padded, shape (k, L), int64.
        mask: True at the answer, shape (k, L), bool.
        allowed: What could be chosen at each chosen token, in the order of `mask`, shape
            (mask.sum(), V), bool; None without action masks.
    """

    samples: list[Sample]
    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]
    allowed: NDArray[np.bool_] | None


def _answer(
    policy: Policy,
    envs: TextVectorEnv,
    prompts: Sequence[Prompt],
    temperature: float,
    generator: np.random.Generator,
) -> _Batch:
    """Let at most `envs.num_envs` prompts be answered, one a row; rows left over play along."""
    count, rows = len(prompts), envs.num_envs
    padded = [prompts[row % count] for row in range(rows)]
    observations, infos = envs.reset(seed=0, options={"prompt": padded})
    texts = infos["prompt"]
    starts = (observations != policy.pad_token).sum(1)
    cache = policy.new_cache(*observations.shape)
    running = np.arange(rows) < count
    scores = np.zeros(rows)
    finals: list[Any] = [None] * rows
    samples: list[Any] = [None] * rows
    masks: list[NDArray[np.bool_]] = []
    while running.any():
        allowed = infos.get("action_mask")
        if allowed is not None:
            masks.append(allowed)
        step = policy.act(
            observations,
            cache,
            temperature=temperature,
            action_masks=allowed,
            generator=generator,
        )
        observations, rewards, terminated, truncated, infos = envs.step(step.actions)
        scores[running] += rewards[running]
        for row in np.flatnonzero(running & (terminated | truncated)):
            finals[row] = infos["final_obs"][row]
            answer = str(infos["final_info"]["text"][row])
            samples[row] = Sample(str(texts[row]), answer, float(scores[row]))
            running[row] = False
    tokens = np.stack(finals[:count])
    lengths = (tokens != policy.pad_token).sum(1)
    places = np.arange(tokens.shape[1])
    mask = (places >= starts[:count, None]) & (places < lengths[:, None])
    chosen = None
    if masks:
        of_row, at = np.nonzero(mask)
        chosen = np.stack(masks, axis=1)[of_row, at - starts[of_row]]
    return _Batch(samples[:count], tokens, mask, chosen)


def _answer_logprobs(
    policy: Policy | None, batch: _Batch, temperature: float
) -> NDArray[np.float64]:
    """Log-probability of each answer, shape (k,); NaN without a policy."""
    if policy is None:
        return np.full(len(batch.samples), np.nan)
    tokens, mask = (torch.from_numpy(x).to(policy.device) for x in (batch.tokens, batch.mask))
    allowed = None if batch.allowed is None else torch.from_numpy(batch.allowed).to(policy.device)
    scores = policy.score(tokens, mask, temperature=temperature, action_masks=allowed)
    summed: NDArray[np.float64] = scores.logprobs.double().sum(1).cpu().numpy()
    return summed

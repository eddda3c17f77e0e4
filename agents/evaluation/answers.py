"""A policy's answers to given prompts, their scores, and their probability under a reference."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from agents.evaluation.intervals import bootstrap_interval
from agents.evaluation.text_measures import distinct_n
from agents.runs.endings import is_scored
from agents.runs.samples import Sample
from policies import Policy, PolicyOutputs
from textenv import Prompt, TextVectorEnv
from textenv.seeding import keyed_generator


@dataclass(frozen=True)
class Evaluation:
    """Answers to n prompts, one for each, in the order of the prompts.

    Attributes:
        samples: Prompts, answers and scores as text and numbers.
        answers: Token ids of the answers, a stop token included.
        logprobs: Log-probability of each answer under the policy, shape (n,).
        ref_logprobs: The same under the reference, shape (n,); NaN without a reference.
    """

    samples: Sequence[Sample]
    answers: Sequence[NDArray[np.int64]]
    logprobs: NDArray[np.float64]
    ref_logprobs: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Sum of the environment's rewards for each answer, shape (n,); NaN without a score."""
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
        """KL(policy || reference) of one chosen token in nats, estimated in the same way."""
        return float((self.logprobs - self.ref_logprobs).sum() / self.num_tokens)

    @property
    def reference_perplexity(self) -> float:
        """Perplexity of the answers under the reference: it rises as they stop reading well."""
        return math.exp(-float(self.ref_logprobs.sum()) / self.num_tokens)

    @property
    def distinct_2(self) -> float:
        """Different pairs of neighbouring tokens, as a share of all of them; see `distinct_n`."""
        return distinct_n(self.answers, 2)

    def numbers(self) -> dict[str, float]:
        """All of these numbers by name, and the bounds of the mean score."""
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
        policy: The policy that answers; its own random numbers are not used.
        envs: An environment with any number of rows, in SAME_STEP mode; its own prompts are not
            used.
        prompts: At least one prompt.
        reference: A policy to compare with, for the KL.
        temperature: Logits are divided by this, in sampling and in the log-probabilities.
        seed: Seed of the sampling; the same policy, prompts and seed give the same answers. Each
            prompt has random numbers of its own, so policies are compared on equal numbers.
        on_answers: Called with the number of answers so far after each batch.

    Raises:
        ValueError: There are no prompts, or `envs` is in another autoreset mode.
        PromptError: A prompt cannot be used in `envs`.
        RewardError: The reward failed.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer")
    samples: list[Sample] = []
    answers: list[NDArray[np.int64]] = []
    logprobs: list[NDArray[np.float64]] = []
    ref_logprobs: list[NDArray[np.float64]] = []
    for begin in range(0, len(prompts), envs.num_envs):
        some = prompts[begin : begin + envs.num_envs]
        numbers = [keyed_generator(seed, begin + place) for place in range(len(some))]
        batch = answer_prompts(policy, envs, some, temperature=temperature, generators=numbers)
        samples += batch.samples
        answers += [row[chosen] for row, chosen in zip(batch.tokens, batch.mask, strict=True)]
        for reader, sums in ((policy, logprobs), (reference, ref_logprobs)):
            sums.append(_answer_logprobs(reader, batch, temperature))
        on_answers(len(samples))
    return Evaluation(samples, answers, np.concatenate(logprobs), np.concatenate(ref_logprobs))


class Answers(NamedTuple):
    """Answers to k prompts, token by token.

    Attributes:
        samples: Prompts, answers and scores as text and numbers.
        tokens: Prompt and answer, right-padded, shape (k, L), int64.
        mask: True at the answer, shape (k, L), bool.
        rewards: The environment's reward for each chosen token, 0 elsewhere, shape (k, L).
        allowed: What could be chosen at each chosen token, in the order of `mask`, shape
            (mask.sum(), V), bool; None without action masks.
    """

    samples: list[Sample]
    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]
    rewards: NDArray[np.float64]
    allowed: NDArray[np.bool_] | None


@torch.inference_mode()
def answer_prompts(
    policy: Policy,
    envs: TextVectorEnv,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    generators: Sequence[np.random.Generator],
) -> Answers:
    """Answer at most `envs.num_envs` prompts, one in each row.

    Spare rows repeat prompts; their answers are dropped.

    Args:
        policy: The policy that answers; its own random numbers are not used.
        envs: An environment in SAME_STEP mode.
        prompts: At least one prompt.
        temperature: Logits are divided by this.
        generators: Source of each prompt's random numbers.

    Raises:
        ValueError: `envs` is in another autoreset mode than SAME_STEP.
        PromptError: A prompt cannot be used in `envs`.
        RewardError: The reward failed.
    """
    if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
        raise ValueError(f"envs has the autoreset mode {envs.autoreset_mode}; it must be SAME_STEP")
    count, rows = len(prompts), envs.num_envs
    padded = [prompts[row % count] for row in range(rows)]
    observations, infos = envs.reset(seed=0, options={"prompt": padded})
    texts = infos["prompt"]
    cache = policy.new_cache(*observations.shape)
    running = np.arange(rows) < count
    uniforms = np.stack(
        [generators[row % count].random(envs.max_new_tokens) for row in range(rows)]
    )
    scores = np.zeros(rows)
    finals: list[Any] = [None] * rows
    samples: list[Any] = [None] * rows
    token_rewards, mask = np.zeros(observations.shape), np.zeros(observations.shape, dtype=bool)
    masks: list[NDArray[np.bool_]] = []
    chosen: list[tuple[NDArray[np.intp], NDArray[np.int64]]] = []
    for number in range(envs.max_new_tokens):
        if not running.any():
            break
        allowed = infos.get("action_mask")
        step = policy.act(
            observations,
            cache,
            temperature=temperature,
            action_masks=allowed,
            uniforms=uniforms[:, number],
        )
        of, at = running.nonzero()[0], (observations != policy.pad_token).sum(1)[running]
        observations, rewards, terminated, truncated, infos = envs.step(step.actions)
        mask[of, at], token_rewards[of, at] = True, rewards[of]
        if allowed is not None:
            masks.append(allowed[of])
            chosen.append((of, at))
        scores[running] += rewards[running]
        for row in np.flatnonzero(running & (terminated | truncated)):
            finals[row] = infos["final_obs"][row]
            ends: dict[str, Any] = infos["final_info"]
            score = float(scores[row]) if is_scored(ends, int(row)) else math.nan
            samples[row] = Sample(str(texts[row]), str(ends["text"][row]), score)
            running[row] = False
    tokens = np.stack(finals[:count])
    return Answers(
        samples[:count], tokens, mask[:count], token_rewards[:count], _in_order(masks, chosen)
    )


def _in_order(
    masks: list[NDArray[np.bool_]], chosen: list[tuple[NDArray[np.intp], NDArray[np.int64]]]
) -> NDArray[np.bool_] | None:
    """The action masks of all steps, row by row and place by place; None without any."""
    if not masks:
        return None
    of, at = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    ordered: NDArray[np.bool_] = np.concatenate(masks)[np.lexsort((at, of))]
    return ordered


@torch.inference_mode()
def answer_outputs(policy: Policy, answers: Answers, temperature: float) -> PolicyOutputs:
    """A policy's outputs for each chosen token; tensors of shape (k, L), 0 outside the answers."""
    tokens, mask = (torch.from_numpy(x).to(policy.device) for x in (answers.tokens, answers.mask))
    allowed = None
    if answers.allowed is not None:
        allowed = torch.from_numpy(answers.allowed).to(policy.device)
    return policy.outputs(tokens, mask, temperature=temperature, action_masks=allowed)


def _answer_logprobs(
    policy: Policy | None, answers: Answers, temperature: float
) -> NDArray[np.float64]:
    """Log-probability of each answer, shape (k,); NaN without a policy."""
    if policy is None:
        return np.full(len(answers.samples), np.nan)
    outputs = answer_outputs(policy, answers, temperature)
    summed: NDArray[np.float64] = outputs.logprobs.double().sum(1).cpu().numpy()
    return summed

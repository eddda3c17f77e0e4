"""A policy's answers to given prompts, their scores, and their probability under a reference."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from agents.collector import collector_from, in_order
from agents.evaluation.intervals import bootstrap_interval
from agents.evaluation.numbers import numbers_of
from agents.evaluation.text_measures import distinct_n
from agents.runs.samples import Sample, turns_of
from policies import Policy, PolicyOutputs
from policies.cache import common_prefix
from policies.sampling import sample_gumbel
from textenv import ListPrompts, Prompt, TextVectorEnv
from textenv.errors import WorldError
from textenv.records import transcript
from textenv.starts import Start

Answerer: TypeAlias = Callable[..., "Answers"]
"""What `answer_prompts` is: a policy, an environment, prompts, temperature=, generators=."""


TRIED_DRAFTS = 8
WORTH_DRAFTS = 0.2
"""Below this share of kept tokens drafts were not quicker than plain steps in one row either."""


@dataclass(frozen=True)
class Evaluation:
    """Answers to n prompts, one for each, in the order of the prompts.

    Attributes:
        samples: Prompts, answers and scores as text and numbers.
        answers: Token ids of the answers, a stop token included.
        logprobs: Log-probability of each answer under the policy, shape (n,).
        ref_logprobs: The same under the reference, shape (n,); NaN without a reference.
        failed_worlds: Conversations that ended because their world failed; they have no score.
        read_by: Log-probability of each answer under the `readers`, by their names, each (n,).
    """

    samples: Sequence[Sample]
    answers: Sequence[NDArray[np.int64]]
    logprobs: NDArray[np.float64]
    ref_logprobs: NDArray[np.float64]
    failed_worlds: int = 0
    read_by: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """As `agents.runs.state_files` writes it."""
        samples = [vars(sample) for sample in self.samples]
        return {**vars(self), "samples": samples, "read_by": dict(self.read_by)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """From what `state` gave."""
        samples = [
            Sample(**{**sample, "turns": tuple(map(tuple, sample["turns"]))})
            for sample in state["samples"]
        ]
        return cls(**{**state, "samples": samples})

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
        failed = {"failed_worlds": float(self.failed_worlds)} if self.failed_worlds else {}
        return {
            "score": score.mean,
            "score_low": score.low,
            "score_high": score.high,
            "tokens_per_answer": self.tokens_per_answer,
            "kl_per_answer": self.kl_per_answer,
            "kl_per_token": self.kl_per_token,
            "reference_perplexity": self.reference_perplexity,
            "distinct_2": self.distinct_2,
            **failed,
        }


@torch.inference_mode()
def evaluate(
    policy: Policy,
    envs: TextVectorEnv,
    prompts: Sequence[Prompt],
    *,
    reference: Policy | None = None,
    readers: Mapping[str, Policy] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    answer: Answerer | None = None,
    drafts: Sequence[NDArray[np.int64]] | None = None,
    on_answers: Callable[[int], object] = lambda count: None,
    before: Evaluation | None = None,
    on_batch: Callable[[Evaluation], object] = lambda so_far: None,
) -> Evaluation:
    """Answer each of `prompts` once in `envs`, which also scores the answers.

    Args:
        policy: The policy that answers; its own random numbers are not used.
        envs: An environment, whose arguments are used but for the prompts; its running episodes go
            on as they were.
        prompts: At least one prompt.
        reference: A policy to compare with, for the KL.
        readers: Other policies of this vocabulary that say how likely the answers are, by names.
        temperature: Logits are divided by this, in sampling and in the log-probabilities; 0 takes
            the likeliest tokens, and compares log-probabilities at temperature 1.
        seed: Seed of the sampling; the same policy, prompts and seed give the same answers. Each
            prompt has random numbers of its own for each token, so policies are compared on equal
            ones, and two that differ little give mostly the same answers; see `numbers_of` and
            `policies.sampling.sample_gumbel`.
        answer: Answers a batch of prompts in place of `answer_prompts`, with the same arguments:
            `agents.search.BySearch(MCTS())` searches for the best answer to each.
        drafts: An answer to each prompt that the policy probably gives, such as the `answers` of
            an earlier checkpoint with the same seed. They are encoded ahead; the answers are the
            same without them, up to rounding. Once `TRIED_DRAFTS` answers have kept less than
            `WORTH_DRAFTS` of their tokens, the rest is answered without. Only `answer_prompts`
            takes them.
        on_answers: Called with the number of answers so far after each batch.
        before: What the last `on_batch` of a call with the same arguments was given: its answers
            are not asked for again.
        on_batch: Called with the evaluation so far after each batch.

    Raises:
        ValueError: There are no prompts, or another number of drafts.
        PromptError: A prompt cannot be used in `envs`.
        RewardError: The reward failed.
        WorldError: The world failed in all conversations.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer")
    if drafts is not None and len(drafts) != len(prompts):
        raise ValueError(
            f"there are {len(drafts)} drafts and {len(prompts)} prompts: give one for each, such "
            "as the answers of an evaluation on the same prompts"
        )
    nothing = np.zeros(0)
    before = before or Evaluation([], [], nothing, nothing)
    samples, answers = list(before.samples), list(before.answers)
    logprobs, ref_logprobs = [before.logprobs], [before.ref_logprobs]
    failed, world_error = before.failed_worlds, ""
    read = {name: [before.read_by.get(name, nothing)] for name in readers or {}}

    def so_far() -> Evaluation:
        sums = np.concatenate(logprobs), np.concatenate(ref_logprobs)
        said = {name: np.concatenate(parts) for name, parts in read.items()}
        return Evaluation(list(samples), list(answers), *sums, failed, said)

    if samples:
        on_answers(len(samples))
    numbers = numbers_of(ListPrompts(prompts).prompts, seed)
    for begin in range(len(samples), len(prompts), envs.num_envs):
        some = slice(begin, begin + envs.num_envs)
        ahead = {} if drafts is None else {"drafts": drafts[some]}
        batch = (answer or answer_prompts)(
            policy, envs, prompts[some], temperature=temperature, generators=numbers[some], **ahead
        )
        samples += batch.samples
        answers += [row[chosen] for row, chosen in zip(batch.tokens, batch.mask, strict=True)]
        for reader, sums in ((policy, logprobs), (reference, ref_logprobs)):
            sums.append(_answer_logprobs(reader, batch, temperature or 1.0))
        for name, other in (readers or {}).items():
            read[name].append(_answer_logprobs(other, batch, temperature or 1.0))
        failed += batch.failed_worlds
        world_error = batch.world_error or world_error
        on_batch(so_far())
        on_answers(len(samples))
        if drafts is not None and len(answers) >= TRIED_DRAFTS:
            if kept_of_drafts(answers, drafts[: len(answers)]) < WORTH_DRAFTS:
                drafts = None
    if failed == len(prompts):
        raise WorldError(
            f"the world failed in all {failed} conversations, the last time so: {world_error}"
        )
    return so_far()


def kept_of_drafts(
    answers: Sequence[NDArray[np.int64]], drafts: Sequence[NDArray[np.int64]]
) -> float:
    """Share of the answers' tokens that stand before the first difference to their drafts."""
    common = 0
    for answer, draft in zip(answers, drafts, strict=True):
        length = min(len(answer), len(draft))
        common += int(common_prefix(answer[:length], draft[:length]))
    return common / sum(map(len, answers))


class Answers(NamedTuple):
    """Answers to k prompts, token by token.

    Attributes:
        samples: Prompts, answers and scores as text and numbers.
        tokens: Prompt and answer, right-padded, shape (k, L), int64.
        mask: True at the answer, shape (k, L), bool.
        rewards: The environment's reward for each chosen token, 0 elsewhere, shape (k, L).
        allowed: What could be chosen at each chosen token, in the order of `mask`, shape
            (mask.sum(), V), bool; None without action masks.
        failed_worlds: Conversations that ended because their world failed.
        world_error: What went wrong in the last of these.
    """

    samples: list[Sample]
    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]
    rewards: NDArray[np.float64]
    allowed: NDArray[np.bool_] | None
    failed_worlds: int = 0
    world_error: str = ""


@torch.inference_mode()
def answer_prompts(
    policy: Policy,
    envs: TextVectorEnv,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    generators: Sequence[np.random.Generator],
    drafts: Sequence[NDArray[np.int64]] | None = None,
) -> Answers:
    """Answer each of `prompts` once.

    Args:
        policy: The policy that answers; its own random numbers are not used.
        envs: An environment, whose arguments are used; its running episodes go on as they were.
        prompts: At least one prompt.
        temperature: Logits are divided by this; 0 takes the likeliest tokens.
        generators: Source of each prompt's random numbers, those of a world's replies included.
        drafts: Answers that are probably given; see `Collector.read_ahead`.

    Raises:
        PromptError: A prompt cannot be used in `envs`.
        RewardError: The reward failed.
    """
    uniforms = np.stack([generator.random(envs.max_new_tokens) for generator in generators])
    seeds = [int(generator.integers(2**63)) for generator in generators]
    starts = [  # of draws of their own: each prompt has a world of its own
        Start(prompt, draw_seed=seed, episode_seed=seed)
        for prompt, seed in zip(ListPrompts(prompts).prompts, seeds, strict=True)
    ]
    collector = collector_from(
        policy, envs, starts, temperature, uniforms=uniforms, sampler=sample_gumbel
    )
    if drafts is not None:
        collector.read_ahead(dict(zip(seeds, drafts, strict=True)))
    rollout = in_order(collector.collect_episodes(len(starts)))
    tokens, mask, rewards = (
        x.cpu().numpy() for x in (rollout.tokens, rollout.mask, rollout.rewards)
    )
    allowed, scores = rollout.action_masks, rollout.scores.tolist()
    assert rollout.starts is not None and rollout.texts is not None
    begun = [opening_text(start) for start in rollout.starts]
    turns = [turns_of(rollout, row, envs.tokenizer) for row in range(len(rollout))]
    failed = (rollout.endings or {}).get("failed", torch.zeros(0))
    return Answers(
        [Sample(*said) for said in zip(begun, rollout.texts, scores, turns, strict=True)],
        tokens,
        mask,
        rewards,
        None if allowed is None else allowed.cpu().numpy(),
        int((failed == 1).sum()),
        collector.world_error,
    )


def opening_text(start: Start) -> str:
    """What an episode began with as judges and people read it: of a dialogue a transcript."""
    assert start.opening is not None
    opening, said = start.opening.text, start.prompt.messages
    is_opening = said is not None and len(said) > 1 and opening == start.prompt.text
    return transcript(said) if said is not None and is_opening else opening


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

"""Which answers to a prompt are better: rankings, their files, and how to make them.

A file of rankings is JSON lines, `{"prompt": ..., "answers": [...], "ranks": [...]}`. Pairs can be
read too, as `{"prompt", "chosen", "rejected"}` or as the whole dialogues of Anthropic's hh-rlhf.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch

from agents.rollout import Rollout
from policies import Policy, generate_tokens
from textenv.errors import (
    PromptError,
    PromptTooLongError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
    TokenizerError,
)
from textenv.places import place_of
from textenv.records import read_jsonl, short
from textenv.tokenizers import (
    Tokenizer,
    decode_answer,
    encode_answer,
    encode_prompt,
    stop_tokens_of,
)

ANSWER_MARK = "\n\nAssistant:"
"""The text before every answer in a dialogue of hh-rlhf."""

Labeller: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""Takes a prompt and its answers, gives each answer a score: higher is better, equal is a tie."""


@dataclass(frozen=True)
class Ranking:
    """K answers to one prompt in order of preference.

    Attributes:
        prompt: The prompt's text.
        answers: At least two answers.
        ranks: One rank for each answer, 1 or more: the lowest is the best, equal ones are ties.

    Raises:
        ValueError: The prompt, the answers or the ranks are something else than that.
    """

    prompt: str
    answers: tuple[str, ...]
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise ValueError(f"the prompt {short(self.prompt)} is not a text")
        if len(self.answers) < 2 or not all(isinstance(text, str) for text in self.answers):
            raise ValueError(f"the answers {short(self.answers)} are not two or more texts")
        if not all(type(rank) is int and rank >= 1 for rank in self.ranks):
            raise ValueError(f"the ranks {short(self.ranks)} are not integers from 1")
        if len(self.answers) != len(self.ranks):
            raise ValueError(f"there are {len(self.answers)} answers and {len(self.ranks)} ranks")

    @classmethod
    def from_scores(cls, prompt: str, answers: Iterable[str], scores: Sequence[float]) -> Self:
        """Rank the answers by their scores; the rank is 1 plus the number of better answers.

        >>> Ranking.from_scores("2 + 2 =", ["5", "4", "four"], [0.0, 1.0, 1.0]).ranks
        (3, 1, 1)
        """
        ranks = tuple(1 + sum(other > score for other in scores) for score in scores)
        return cls(prompt, tuple(answers), ranks)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """A ranking from one of the three forms that files have.

        Other keys are ignored. Dialogues of hh-rlhf are split behind the last "Assistant:" that
        both have in common.

        Raises:
            ValueError: The record has none of these forms.
        """
        if {"prompt", "answers", "ranks"} <= record.keys():
            answers, ranks = record["answers"], record["ranks"]
            if not (isinstance(answers, list) and isinstance(ranks, list)):
                raise ValueError("'answers' and 'ranks' must be lists")
            return cls(record["prompt"], tuple(answers), tuple(ranks))
        if {"chosen", "rejected"} <= record.keys():
            chosen, rejected = record["chosen"], record["rejected"]
            if not (isinstance(chosen, str) and isinstance(rejected, str)):
                raise ValueError(
                    f"'chosen' is {short(chosen)} and 'rejected' is {short(rejected)}; both must "
                    "be texts"
                )
            prompt = record.get("prompt")
            if prompt is None:
                prompt, chosen, rejected = _split_dialogues(chosen, rejected)
            return cls(prompt, (chosen, rejected), (1, 2))
        raise ValueError(
            "the record has neither 'prompt', 'answers' and 'ranks' nor 'chosen' and 'rejected'; "
            f"its keys are {short(list(record))}"
        )

    def to_record(self) -> dict[str, Any]:
        """The record from which `from_record` makes this ranking again."""
        return {"prompt": self.prompt, "answers": list(self.answers), "ranks": list(self.ranks)}

    def pairs(self) -> list[tuple[str, str]]:
        """Every pair of a better and a worse answer; ties make no pair."""
        ranked = list(zip(self.answers, self.ranks, strict=True))
        return [(a, b) for a, rank in ranked for b, other in ranked if rank < other]


def _split_dialogues(chosen: str, rejected: str) -> tuple[str, str, str]:
    different = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    common = chosen[: next(different, min(len(chosen), len(rejected)))]
    end = common.rfind(ANSWER_MARK) + len(ANSWER_MARK)
    if end < len(ANSWER_MARK):
        raise ValueError(
            f"the dialogues {short(chosen)} and {short(rejected)} have no common beginning that "
            f"ends in {ANSWER_MARK!r}; give the 'prompt' by itself"
        )
    return chosen[:end], chosen[end:], rejected[end:]


# -------------------------------------------------------------------- files


def read_rankings(path: str | os.PathLike[str]) -> list[Ranking]:
    """Rankings from a `.jsonl` or `.jsonl.gz` file.

    Raises:
        MalformedRecordError: The file or some lines of it cannot be read; the message names them.
        PromptError: The file holds no ranking.
    """
    rankings = read_jsonl(path, Ranking.from_record, "rankings of answers")
    if not rankings:
        raise PromptError(f"there is no ranking in {path}")
    return rankings


def append_rankings(path: str | os.PathLike[str], rankings: Iterable[Ranking]) -> None:
    """Add rankings to a `.jsonl` file and write them to disk at once.

    The file and its folder are made if they do not exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r.to_record(), ensure_ascii=False) + "\n" for r in rankings]
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # written by hand, perhaps: do not join two records
                lines.insert(0, "\n")
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())


# -------------------------------------------------------------------- answers, and their ranks


def laid_flat(rankings: Iterable[Ranking]) -> tuple[list[str], list[str]]:
    """All answers of the rankings in their order, each with its prompt: prompts and answers."""
    pairs = [(ranking.prompt, answer) for ranking in rankings for answer in ranking.answers]
    return [prompt for prompt, _ in pairs], [answer for _, answer in pairs]


def sample_answers(
    policy: Policy,
    prompts: Sequence[str],
    k: int,
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int | Sequence[int] = 0,
    on_answers: Callable[[int], object] = lambda count: None,
) -> list[list[str]]:
    """K answers of `policy` to each prompt, without stop tokens.

    Args:
        policy: The policy that answers; it must have a tokenizer.
        prompts: Texts.
        k: Number of answers to each prompt.
        max_new_tokens: Token budget of an answer.
        temperature: Logits are divided by this before sampling.
        seed: The same policy, prompts and seed give the same answers.
        on_answers: Called with the number of answers so far after each.

    Raises:
        EmptyPromptsError: A prompt has no token.
        PromptTooLongError: A prompt and its budget do not fit the policy's context.
        TokenizerError: The policy has no tokenizer.
    """
    tokenizer = policy.tokenizer
    if tokenizer is None:
        raise TokenizerError("this policy has no tokenizer: set policy.tokenizer")
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    room = policy.context - max_new_tokens + 1  # the last token is not read any more
    long = [p for p, ids in zip(prompts, encoded, strict=True) if len(ids) > room]
    if long:
        raise PromptTooLongError(
            f"{len(long)} of {len(prompts)} prompts, such as {short(long[0])}, have more than "
            f"{max(room, 0)} tokens: with {max_new_tokens} new ones they do not fit the policy's "
            f"context of {policy.context}"
        )
    stops = stop_tokens_of(tokenizer)
    lengths: Counter[int] = Counter()
    finished = 0

    def count(number: int, token: int) -> None:
        nonlocal finished
        lengths[number] += 1
        if token in stops or lengths[number] == max_new_tokens:
            finished += 1
            on_answers(finished)

    answers = generate_tokens(
        policy,
        encoded,
        max_new_tokens,
        n=k,
        temperature=temperature,
        generator=np.random.default_rng(seed),
        on_token=count,
    )
    texts = iter(
        decode_answer(tokenizer, encoded[number // k], a[:-1] if a[-1] in stops else a)
        for number, a in enumerate(answers)
    )
    return [list(islice(texts, k)) for _ in prompts]


def rank(
    labeller: Labeller, prompts: Iterable[str], answers: Iterable[Sequence[str]]
) -> list[Ranking]:
    """Have the answers to each prompt ranked.

    Raises:
        RewardError: The labeller raised, or did not give one finite number for each answer.
    """
    rankings = []
    for prompt, some in zip(prompts, answers, strict=True):
        try:
            scores = [float(score) for score in labeller(prompt, some)]
        except RewardRaisedError:  # a labeller that asks another one has been told
            raise
        except Exception as error:
            place = place_of(error, labeller)
            raise RewardRaisedError(
                f"the labeller raised {type(error).__name__} on the answers to {short(prompt)}: "
                f"{error}" + (f"; in {place}" if place else "")
            ) from error
        if len(scores) != len(some):
            raise RewardCountError(
                f"the labeller gave {len(scores)} scores for {len(some)} answers to {short(prompt)}"
            )
        if not all(map(math.isfinite, scores)):
            raise RewardValueError(
                f"the labeller gave the scores {scores} to the answers to {short(prompt)}; they "
                "must be finite numbers"
            )
        rankings.append(Ranking.from_scores(prompt, some, scores))
    return rankings


def preference_rollout(rankings: Sequence[Ranking], tokenizer: Tokenizer, context: int) -> Rollout:
    """All answers as a rollout, for DPO, IPO and others that learn from `scores` and `groups`.

    Every answer is one sequence of prompt, answer and stop token, with the score -rank; the answers
    of one ranking are a group. Sequences longer than the context lose their beginning.

    Args:
        rankings: At least one.
        tokenizer: The policy's tokenizer.
        context: The policy's context, in tokens.
    """
    stop = [] if tokenizer.stop_token is None else [tokenizer.stop_token]
    sequences, starts, scores, groups = [], [], [], []
    for group, ranking in enumerate(rankings):
        prompt = encode_prompt(tokenizer, ranking.prompt)
        for answer, place in zip(ranking.answers, ranking.ranks, strict=True):
            ids = [*prompt, *encode_answer(tokenizer, answer), *stop]
            dropped = max(len(ids) - context, 0)
            sequences.append(ids[dropped:])
            # The first token of all has nothing before it from which it could be chosen.
            starts.append(max(len(prompt) - dropped, 1))
            scores.append(-place)
            groups.append(group)
    lengths = torch.tensor([len(ids) for ids in sequences])
    tokens = torch.full((len(sequences), int(lengths.max())), tokenizer.vocab_size)
    for row, ids in zip(tokens, sequences, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    places = torch.arange(tokens.shape[1])
    mask = (places >= torch.tensor(starts)[:, None]) & (places < lengths[:, None])
    return Rollout.from_log(tokens, mask, torch.tensor(scores), torch.tensor(groups))

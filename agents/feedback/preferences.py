"""Making preferences: answers of a policy, their ranks by a labeller, and a rollout for DPO."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch

from agents.feedback.rankings import (
    Asked,
    Ranking,
    append_rankings,
    as_text,
    for_frame,
    laid_flat,
    read_rankings,
)
from agents.rollout import Rollout
from policies import Policy, generate_tokens
from textenv.encoding import answered_ids, asked_ids
from textenv.errors import (
    PromptTooLongError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
    TokenizerError,
)
from textenv.frames import Frame
from textenv.masks import ends_of_answers
from textenv.places import place_of
from textenv.records import short
from textenv.tokenizers import Tokenizer, decode_answer

Labeller: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""Takes a prompt and its answers, gives each answer a score: higher is better, equal is a tie.

The prompt is a text; of a conversation it is a transcript.
"""


def sample_answers(
    policy: Policy,
    prompts: Sequence[Asked],
    k: int,
    *,
    frame: Frame | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int | Sequence[int] = 0,
    on_answers: Callable[[int], object] = lambda count: None,
) -> list[list[str]]:
    """K answers of `policy` to each prompt, without stop tokens.

    Args:
        policy: The policy that answers; it must have a tokenizer.
        prompts: Texts, or messages if there is a frame.
        k: Number of answers to each prompt.
        frame: What wraps the prompts, as in an environment: its end of a turn ends an answer, which
            is taken without the white space around it. None reads texts as they are.
        max_new_tokens: Token budget of an answer.
        temperature: Logits are divided by this before sampling.
        seed: The same policy, prompts and seed give the same answers.
        on_answers: Called with the number of answers so far after each.

    Raises:
        EmptyPromptsError: A prompt has no token.
        PromptTooLongError: A prompt and its budget do not fit the policy's context.
        TokenizerError: The policy has no tokenizer.
        UnframedError: There are messages and no frame.
    """
    tokenizer = policy.tokenizer
    if tokenizer is None:
        raise TokenizerError("this policy has no tokenizer: set policy.tokenizer")
    encoded = [asked_ids(p, tokenizer, frame, f"prompts[{i}]") for i, p in enumerate(prompts)]
    room = policy.context - max_new_tokens + 1  # the last token is not read any more
    long = [p for p, ids in zip(prompts, encoded, strict=True) if len(ids) > room]
    if long:
        raise PromptTooLongError(
            f"{len(long)} of {len(prompts)} prompts, such as {short(long[0])}, have more than "
            f"{max(room, 0)} tokens: with {max_new_tokens} new ones they do not fit the policy's "
            f"context of {policy.context}"
        )
    stops = ends_of_answers(tokenizer, None, frame.end_of_turn if frame else None)
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
        stop_tokens=stops,
        forbidden_tokens=frame.role_tokens if frame else (),
        generator=np.random.default_rng(seed),
        on_token=count,
    )
    texts = iter(
        decode_answer(tokenizer, encoded[number // k], a[:-1] if a[-1] in stops else a)
        for number, a in enumerate(answers)
    )
    if frame is not None:  # the template has the space before an answer
        texts = (text.strip() for text in texts)
    return [list(islice(texts, k)) for _ in prompts]


def rank(
    labeller: Labeller, prompts: Iterable[Asked], answers: Iterable[Sequence[str]]
) -> list[Ranking]:
    """Have the answers to each prompt, a text or messages, ranked.

    Raises:
        RewardError: The labeller raised, or did not give one finite number for each answer.
    """
    rankings = []
    for prompt, some in zip(prompts, answers, strict=True):
        try:
            scores = [float(score) for score in labeller(as_text(prompt), some)]
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


def preference_rollout(
    rankings: Sequence[Ranking], tokenizer: Tokenizer, context: int, frame: Frame | None = None
) -> Rollout:
    """All answers as a rollout, for DPO, IPO and others that learn from `scores` and `groups`.

    Every answer is one sequence of prompt, answer and stop token, with the score -rank; the answers
    of one ranking are a group. Sequences longer than the context lose their beginning.

    Args:
        rankings: At least one.
        tokenizer: The policy's tokenizer.
        context: The policy's context, in tokens.
        frame: What wraps messages, as in an environment; see `Ranking.as_dialogue` for texts. None
            reads texts as they are.

    Raises:
        UnframedError: There are messages and no frame.
        FrameError: The frame refuses messages.
    """
    sequences, starts, scores, groups = [], [], [], []
    for group, ranking in enumerate(for_frame(rankings, frame)):
        prompt = asked_ids(ranking.asked, tokenizer, frame, f"rankings[{group}]")
        for answer, place in zip(ranking.answers, ranking.ranks, strict=True):
            ids = prompt + answered_ids(answer, tokenizer, frame)
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


__all__ = [
    "Asked",
    "Labeller",
    "Ranking",
    "append_rankings",
    "laid_flat",
    "preference_rollout",
    "rank",
    "read_rankings",
    "sample_answers",
]

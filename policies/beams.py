"""Beam search: the likeliest answers that a narrow search finds.

Beams are rows of a prefix cache. When a beam goes on from another one its row is simply written
anew: the cache finds by content what it has encoded already, so nothing is reordered.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from policies.generation import Answerer
from textenv.errors import EmptyPromptsError, PromptTooLongError
from textenv.masks import ends_of_answers


class Beam(NamedTuple):
    """An answer that beam search found.

    Attributes:
        tokens: Its ids, a stop token included.
        logprob: Its log-probability in nats.
        score: `logprob / len(tokens) ** length_penalty`.
    """

    tokens: list[int]
    logprob: float
    score: float


def beam_search(
    policy: Answerer,
    prompt: Sequence[int],
    max_new_tokens: int = 64,
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    stop_tokens: Sequence[int] | None = None,
) -> list[Beam]:
    """The best answers to one prompt, best first, as transformers' beam search finds them.

    At each step the 2k likeliest extensions of k beams are looked at; those that end are kept aside
    if they are among the first k, and the first k of the others go on. With one beam it is the
    greedy answer. Beams suit tasks with one right answer, such as translation; in open-ended text
    the likeliest answers are dull and short (Holtzman et al., "The Curious Case of Neural Text
    Degeneration", 2020).

    Args:
        policy: The policy that answers.
        prompt: Token ids, at least one.
        max_new_tokens: Token budget of an answer.
        beams: Answers that are followed at a time, k.
        length_penalty: Exponent of the length by which a log-probability is divided: 0 compares
            answers as wholes, 1 by their mean token.
        stop_tokens: Ids that end an answer; the tokenizer's own if None.

    Returns:
        At most k answers.

    Raises:
        EmptyPromptsError: The prompt has no token.
        PromptTooLongError: The prompt and its budget do not fit the policy's context.
        ValueError: A number is out of its range.
    """
    if beams < 1 or max_new_tokens < 1:
        raise ValueError(
            f"beams is {beams}, max_new_tokens {max_new_tokens}; both must be 1 or more"
        )
    if not len(prompt):
        raise EmptyPromptsError("the prompt has no token to go on from")
    if len(prompt) + max_new_tokens - 1 > policy.context:
        raise PromptTooLongError(
            f"the prompt has {len(prompt)} tokens; with {max_new_tokens} new ones the policy's "
            f"context of {policy.context} leaves room for {policy.context - max_new_tokens + 1}"
        )
    stops = set(ends_of_answers(policy.tokenizer, stop_tokens))
    width = len(prompt) + max_new_tokens
    texts = np.full((beams, width), policy.pad_token, dtype=np.int64)
    texts[:, : len(prompt)] = prompt
    cache = policy.new_cache(beams, width)
    running = torch.full((beams,), -torch.inf, dtype=torch.float64)
    running[0] = 0.0  # all beams begin alike
    finished: list[Beam] = []

    def put_aside(row: NDArray[np.int64], logprob: float, length: int) -> None:
        tokens = row[len(prompt) : len(prompt) + length].tolist()
        finished.append(Beam(tokens, logprob, logprob / length**length_penalty))
        finished.sort(key=lambda beam: -beam.score)
        del finished[beams:]

    for length in range(1, max_new_tokens + 1):
        with torch.inference_mode():
            logits = policy.choices(policy.last_hidden(texts, cache))
            logprobs = logits.log_softmax(-1).double().cpu() + running[:, None]
        best = logprobs.flatten().topk(min(2 * beams, logprobs.numel()))
        place = len(prompt) + length - 1
        going: list[NDArray[np.int64]] = []
        taken: list[float] = []
        for rank, (logprob, index) in enumerate(zip(*map(torch.Tensor.tolist, best), strict=True)):
            row, token = divmod(index, logprobs.shape[1])
            if logprob == -np.inf or len(going) == beams:
                break
            text = texts[row].copy()
            text[place] = token
            if token not in stops and length < max_new_tokens:
                going.append(text)
                taken.append(logprob)
            elif rank < beams:
                put_aside(text, logprob, length)
        # Log-probabilities only fall: the best beam still running may not reach the worst one kept.
        if not going or (
            len(finished) == beams and max(taken) / length**length_penalty <= finished[-1].score
        ):
            break
        texts[: len(going)] = going
        running = torch.full((beams,), -torch.inf, dtype=torch.float64)
        running[: len(going)] = torch.tensor(taken, dtype=torch.float64)
    return finished

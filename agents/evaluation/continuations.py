"""How likely a policy finds texts that it did not write: continuations of prompts, and long texts.

A continuation's ids are those that it adds to its prompt: both are encoded together, and what
stands behind the prompt's own ids is scored. White space at the end of a prompt belongs to the
continuation. This is how lm-evaluation-harness encodes for its own models, with one difference.
Where a token of the whole reaches across the border ("1" + "0" is the one token "10"), the harness
scores what is left behind it, perhaps nothing. Here the continuation is encoded by itself then, as
an answer behind a prompt is in the environment: every character is scored.

Log-probabilities are those of the whole distribution at temperature 1, without masks. Ids that
stand for no token have probability 0, whatever the network says of them.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from policies import Policy, tokenizer_of
from policies.head import SLICE_ENTRIES
from textenv.errors import PromptTooLongError, TokenizerError
from textenv.tokenizers import Tokenizer, encode_answer, encode_prompt, prompt_frame

PLACES_AT_ONCE = 2**14
"""Places of padded rows in one pass, shared ones counted in every row: what attention holds."""


class Scored(NamedTuple):
    """How likely a continuation is behind its prompt.

    Attributes:
        logprob: Sum of the log-probabilities of its tokens, in nats.
        tokens: How many tokens it has.
        greedy: Whether each of them is the likeliest one at its place.
    """

    logprob: float
    tokens: int
    greedy: bool


Pair = tuple[Sequence[int], Sequence[int]]
"""Ids of a prompt and of its continuation."""


def score_continuations(
    policy: Policy,
    pairs: Sequence[tuple[str, str]],
    *,
    on_scored: Callable[[int], object] = lambda count: None,
) -> list[Scored]:
    """The log-likelihood of each continuation behind its prompt.

    Use it for anything that asks how likely a given text is. For questions with options see
    `agents.evaluation.choices`.

    Args:
        policy: The policy that reads; it must have a tokenizer.
        pairs: A prompt and a continuation each. An empty prompt stands for the beginning of a text.
        on_scored: Called with the number of continuations so far after each pass.

    Raises:
        ValueError: A continuation is empty.
        PromptTooLongError: A pair does not fit the policy's context.
        TokenizerError: There is no tokenizer; or a prompt is empty and nothing begins a text.
    """
    encoded = [pair_tokens(policy, prompt, said) for prompt, said in pairs]
    return score_tokens(policy, encoded, on_scored=on_scored)


@torch.inference_mode()
def score_tokens(
    policy: Policy,
    pairs: Sequence[Pair],
    *,
    on_scored: Callable[[int], object] = lambda count: None,
) -> list[Scored]:
    """The same for pairs of ids.

    Rows are read in sorted order, so that what a policy encodes once for rows that begin alike (see
    `policies.sharing`) is found in one pass: the prompt of several options, or the examples that
    all prompts begin with. Equal pairs are read once.

    Args:
        policy: The policy that reads.
        pairs: Ids of a prompt and of its continuation each, neither of them empty.
        on_scored: Called with the number of different continuations so far after each pass.

    Raises:
        ValueError: A prompt or a continuation has no token.
        PromptTooLongError: A pair does not fit the policy's context.
    """
    for number, (prompt, said) in enumerate(pairs):
        if not len(prompt) or not len(said):
            what = "continuation" if len(prompt) else "prompt"
            raise ValueError(f"the {what} of pair {number} has no token: there is nothing to score")
        if (length := len(prompt) + len(said) - 1) > policy.context:  # the last one is not read
            raise PromptTooLongError(
                f"pair {number} has {length} tokens to read",
                f"the policy's context is {policy.context}; shorten the prompt, or see fit_pair",
            )
    different = sorted({(tuple(prompt), tuple(said)) for prompt, said in pairs})
    found: dict[Pair, Scored] = {}
    for some in _passes(different):
        found |= zip(some, _read(policy, some), strict=True)
        on_scored(len(found))
    return [found[tuple(prompt), tuple(said)] for prompt, said in pairs]


def pair_tokens(policy: Policy, prompt: str, continuation: str) -> Pair:
    """Ids of a prompt and of what a continuation adds to it; see the module.

    An encoder-decoder reads the prompt as its source, and the continuation is a text of its own.

    Raises:
        TokenizerError: The policy has no tokenizer; or the prompt is empty and nothing begins a
            text.
    """
    tokenizer = tokenizer_of(policy)
    stripped = prompt.rstrip()
    continuation = prompt[len(stripped) :] + continuation
    if prompt_frame(tokenizer)[1]:
        return encode_prompt(tokenizer, stripped), tokenizer.encode(continuation)
    if not stripped:
        return beginning(policy), tokenizer.encode(continuation)
    before = encode_prompt(tokenizer, stripped)
    whole = encode_prompt(tokenizer, stripped + continuation)
    if whole[: len(before)] == before and len(whole) > len(before):
        return before, whole[len(before) :]
    return before, encode_answer(tokenizer, continuation)


def fit_pair(pair: Pair, context: int) -> Pair:
    """A pair whose prompt has lost as much of its beginning as `context` asks for.

    Raises:
        PromptTooLongError: The continuation alone does not fit.
    """
    prompt, said = pair
    room = context + 1 - len(said)
    if room < 1:
        raise PromptTooLongError(
            f"a continuation has {len(said)} tokens",
            f"the policy's context of {context} has no room for it and a token before it; score "
            "long texts with score_texts",
        )
    return prompt[-room:], said


# -------------------------------------------------------------------- long texts


def score_texts(
    policy: Policy,
    texts: Sequence[str],
    *,
    on_scored: Callable[[int], object] = lambda count: None,
) -> list[Scored]:
    """The log-likelihood of whole texts of any length, each by itself.

    Every token is predicted exactly once, by as much context as the policy takes: texts are read in
    windows, and the last window reaches back to be a full one. The first token is predicted from
    what begins a text, which is not predicted itself.

    Args:
        policy: The policy that reads; it must have a tokenizer.
        texts: Texts; one without tokens has the log-likelihood 0.
        on_scored: Called with the number of windows so far after each pass.

    Raises:
        TokenizerError: There is no tokenizer, or nothing begins a text.
    """
    tokenizer, begins = tokenizer_of(policy), beginning(policy)
    kept = len(begins) if prompt_frame(tokenizer)[1] else 0
    windows = [
        list(rolling_windows(tokenizer.encode(text), begins, policy.context, kept))
        for text in texts
    ]
    scored = iter(score_tokens(policy, [w for some in windows for w in some], on_scored=on_scored))
    return [_sum([next(scored) for _ in some]) for some in windows]


def rolling_windows(
    tokens: Sequence[int], begins: Sequence[int], context: int, kept: int = 0
) -> Iterator[Pair]:
    """Pairs that predict each of `tokens` once.

    Args:
        tokens: Ids of a text.
        begins: Ids that begin a text.
        context: Longest row that is read.
        kept: How many of `begins` every window begins with: all of an encoder-decoder's source.

    >>> list(rolling_windows([1, 2, 3, 4, 5], [0], 3))
    [([0], [1, 2, 3]), ([2, 3], [4, 5])]
    """
    whole, done, room = [*begins, *tokens], len(begins), context - kept
    while done < len(whole):
        end = min(done + room, len(whole))
        start = max(end - 1 - room, kept)
        yield [*whole[:kept], *whole[start:done]], whole[done:end]
        done = end


class Perplexities(NamedTuple):
    """Perplexities of texts under a policy.

    Attributes:
        per_token: exp of minus the log-likelihood a token; equal vocabularies can be compared.
        per_word: The same a word, as white space separates them (`word_perplexity`).
        per_byte: The same a byte of UTF-8 (`byte_perplexity`).
        bits_per_byte: Its logarithm of base 2.
    """

    per_token: float
    per_word: float
    per_byte: float
    bits_per_byte: float


def text_perplexities(policy: Policy, texts: Sequence[str]) -> Perplexities:
    """Perplexities of texts, as lm-evaluation-harness defines them.

    Those a word and a byte compare policies of different vocabularies. For one long stream of ids
    read in windows end to end see `agents.evaluation.perplexity`.

    Raises:
        ValueError: The texts are empty.
        TokenizerError: There is no tokenizer, or nothing begins a text.
    """
    scored = score_texts(policy, texts)
    logprob, tokens = sum(s.logprob for s in scored), sum(s.tokens for s in scored)
    if not tokens:
        raise ValueError("the texts have no token: there is nothing to predict")
    words = sum(len(re.split(r"\s+", text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    per_token, per_word, per_byte = (math.exp(-logprob / n) for n in (tokens, words, size))
    return Perplexities(per_token, per_word, per_byte, -logprob / size / math.log(2))


# -------------------------------------------------------------------- how it is done


def beginning(policy: Policy) -> list[int]:
    """Ids that a text begins with: what stands before the first token where nothing else does.

    It is what the tokenizer puts around an empty prompt, the beginning that a tokenizer of
    transformers names, or the stop token, which stands between texts in pretraining.

    Raises:
        TokenizerError: There is no tokenizer, or it has none of these.
    """
    tokenizer: Tokenizer = tokenizer_of(policy)
    before, after = prompt_frame(tokenizer)
    if before or after:
        return [*before, *after]
    named = getattr(policy, "transformers_tokenizer", None)
    for token in (getattr(named, "bos_token_id", None), tokenizer.stop_token):
        if token is not None:
            return [token]
    raise TokenizerError(
        f"the tokenizer {tokenizer.name!r} has nothing that begins a text: give prompts that are "
        "not empty"
    )


def _sum(parts: Sequence[Scored]) -> Scored:
    return Scored(
        sum(part.logprob for part in parts),
        sum(part.tokens for part in parts),
        all(part.greedy for part in parts),
    )


def _passes(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Neighbours whose padded rows have no more than `PLACES_AT_ONCE` places together."""
    some: list[Pair] = []
    width = 0
    for pair in pairs:
        longest = max(width, len(pair[0]) + len(pair[1]))
        if some and longest * (len(some) + 1) > PLACES_AT_ONCE:
            yield some
            some, longest = [], len(pair[0]) + len(pair[1])
        some.append(pair)
        width = longest
    if some:
        yield some


def _read(policy: Policy, pairs: Sequence[Pair]) -> list[Scored]:
    """The scores of some pairs by one pass."""
    lengths = torch.tensor([len(prompt) + len(said) for prompt, said in pairs])
    counts = torch.tensor([len(said) for _, said in pairs])
    places = torch.arange(int(lengths.max()))
    inside = places < lengths[:, None]
    flat = torch.tensor([token for prompt, said in pairs for token in (*prompt, *said)])
    tokens = torch.zeros(inside.shape, dtype=torch.int64).masked_scatter(inside, flat)
    mask = inside & (places >= (lengths - counts)[:, None])
    tokens, mask, read = (x.to(policy.device) for x in (tokens, mask, lengths - 1))
    hidden = policy.hidden_before(tokens, mask, read)
    logprobs, likeliest = _chosen(policy, hidden, tokens[mask])
    sizes = counts.tolist()
    return [
        Scored(float(some.sum()), len(some), bool(best.all()))
        for some, best in zip(logprobs.split(sizes), likeliest.split(sizes), strict=True)
    ]


def _chosen(policy: Policy, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability (float64) of each token, and whether it is the likeliest, both (N,)."""
    at_once = max(1, SLICE_ENTRIES // policy.vocab_size)
    logprobs, likeliest = [], []
    for some, chosen in zip(hidden.split(at_once), tokens.split(at_once), strict=True):
        logits = policy.choices(some)
        likeliest.append(logits.argmax(-1) == chosen)
        logprobs.append(logits.log_softmax(-1).gather(1, chosen[:, None]).squeeze(1).double())
    return torch.cat(logprobs).cpu(), torch.cat(likeliest).cpu()

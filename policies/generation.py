"""Plain generation of answers, for people, evaluation and examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cache import PrefixCache
from policies.sampling import Sampler, forbid, keep_top, mask_logits, sample
from textenv.errors import EmptyPromptsError, PromptTooLongError, TokenizerError
from textenv.grammars import AnswerGrammar, GrammarRows, load_grammar
from textenv.grammars.refusals import check_grammar
from textenv.masks import ends_of_answers, forbidden_marks, mask_table, token_marks
from textenv.stop_strings import StopStrings
from textenv.tokenizers import Tokenizer, decode_answer, encode_prompt


class Answerer(Protocol):
    """What generation asks of a policy; see `policies.policy.Policy` for the meaning of each."""

    context: int
    vocab_size: int
    pad_token: int
    tokenizer: Tokenizer | None
    generator: np.random.Generator

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    def new_cache(self, num_rows: int, capacity: int | None = None) -> PrefixCache:
        """A prefix cache for this many rows."""
        ...

    def last_hidden(
        self, observations: NDArray[np.int64], cache: PrefixCache | None = None
    ) -> Tensor:
        """Hidden state of each row's last token, shape (num_rows, n_embd)."""
        ...

    def choices(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, n_embd) to logits (N, V) of what can be chosen."""
        ...


def generate_tokens(
    policy: Answerer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    *,
    n: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    logit_bias: Mapping[int, float] | None = None,
    stop_tokens: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    min_new_tokens: int = 0,
    forbidden_tokens: Sequence[int] = (),
    allowed_tokens: Sequence[int] | None = None,
    action_masks: NDArray[np.bool_] | None = None,
    grammar: Any = None,
    batch_size: int = 64,
    generator: np.random.Generator | None = None,
    sampler: Sampler = sample,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Answers to prompts of token ids; rows that finish take up the next prompt at once.

    Args:
        policy: The policy that answers.
        prompts: Token ids, none of them empty.
        max_new_tokens: Token budget of an answer.
        n: Answers to each prompt, which is encoded once for them.
        temperature: Logits are divided by it; 0 takes the likeliest token.
        top_k: Keep only this many tokens.
        top_p: Keep only the likeliest tokens that together reach this probability.
        repetition_penalty: Logits of tokens that the text holds already, the prompt included, are
            divided by it if positive and multiplied if negative (Keskar et al., "CTRL", 2019); 1
            leaves them.
        logit_bias: What is added to the logits of some tokens, by id.
        stop_tokens: Ids that end an answer; the tokenizer's own if None, with a warning if it has
            none.
        stop_strings: Texts that end an answer, wherever tokens begin and end; the policy must have
            a tokenizer. The ids keep what stands behind the string.
        min_new_tokens: Nothing stops an answer until it has this many tokens; this and the next two
            as in `TextVectorEnv`, whose `answer_rules` hold what an environment forbids.
        forbidden_tokens: Ids that are never chosen.
        allowed_tokens: Ids beside which none is chosen, except stop tokens; None allows all.
        action_masks: The same as a table, shape (V,), bool: tokens that may be chosen at all.
        grammar: Which texts an answer may be, as in `TextVectorEnv`; the policy must have a
            tokenizer. Where no whole text fits the budget, an answer is cut by it.
        batch_size: How many prompts are answered at a time.
        generator: Source of random numbers; the policy's own if None.
        sampler: How a number becomes a token; see `Policy.act`.
        on_token: Called with the answer's number and each of its tokens, for streaming.

    Returns:
        The answers' ids in the order of the prompts, those to one prompt side by side, a chosen
        stop token included.

    Raises:
        EmptyPromptsError: A prompt has no token.
        PromptTooLongError: A prompt and its budget do not fit the policy's context.
        TokenizerError: There are stop strings or a grammar, and no tokenizer.
        GrammarError: The grammar cannot be used; see `textenv.grammars.AnswerGrammar`.
        ValueError: A number is out of its range.
    """
    _check_numbers(n, max_new_tokens, temperature, top_k, top_p, batch_size)
    if repetition_penalty <= 0:
        raise ValueError(f"repetition_penalty is {repetition_penalty}; it must be positive")
    bias = None if not logit_bias else _bias(logit_bias, policy)
    room = policy.context - max_new_tokens + 1  # the last token of an answer is never read
    for number, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise EmptyPromptsError(f"prompt {number} has no token to go on from")
        if len(prompt) > room:
            raise PromptTooLongError(
                f"prompt {number} has {len(prompt)} tokens; with {max_new_tokens} new ones the "
                f"policy's context of {policy.context} leaves room for {max(room, 0)}"
            )
    # Side by side: whoever begins finds the prompt in the row of the one before, so the cache reads
    # it once.
    prompts = [prompt for prompt in prompts for _ in range(n)]
    stop_tokens = ends_of_answers(policy.tokenizer, stop_tokens, stop_strings=stop_strings)
    strings = StopStrings(stop_strings, _tokenizer_of(policy)) if stop_strings else None
    forbidden = forbidden_marks(policy.vocab_size, forbidden_tokens, allowed_tokens, stop_tokens)
    if action_masks is not None:
        forbidden |= ~action_masks
    is_stop = token_marks(stop_tokens, policy.vocab_size, "stop_tokens")
    allowed = torch.from_numpy(mask_table(is_stop, forbidden, min_new_tokens)).to(policy.device)
    masked = not allowed.all()
    written = None
    rows = min(batch_size, len(prompts))
    if grammar is not None:
        check_grammar(min_new_tokens, stop_strings)
        never = forbidden.nonzero()[0].tolist()
        known = _tokenizer_of(policy), stop_tokens, never, max_new_tokens
        written = GrammarRows(AnswerGrammar(load_grammar(grammar), *known), rows)
    answers: list[list[int]] = [[] for _ in prompts]
    width = max((len(p) for p in prompts), default=0) + max_new_tokens
    texts = np.full((rows, width), policy.pad_token, dtype=np.int64)
    lengths = np.zeros(rows, dtype=np.int64)
    owner = list(range(rows))  # which prompt each row is answering

    def begin(row: int, number: int) -> None:
        texts[row] = policy.pad_token
        texts[row, : len(prompts[number])] = prompts[number]
        lengths[row], owner[row] = len(prompts[number]), number
        if written is not None:
            written.begin(row, written.begun({}))

    for row in range(rows):
        begin(row, row)
    waiting = rows
    running = set(range(rows))
    # As in a vector environment with autoreset, the batch stays full: a row that has finished takes
    # the next prompt, and the cache finds out by itself what is new.
    cache = policy.new_cache(rows, width)
    while running:
        with torch.inference_mode():
            logits = policy.choices(policy.last_hidden(texts, cache))
            if bias is not None:
                logits = logits + bias
            if repetition_penalty != 1.0:
                logits = penalised(logits, texts, repetition_penalty)
            if masked:
                may_stop = [len(answers[number]) >= min_new_tokens for number in owner]
                logits = mask_logits(logits, allowed[torch.tensor(may_stop).long()])
            if written is not None:
                logits = forbid(logits, torch.from_numpy(written.masks()).to(logits.device))
            if temperature == 0:
                chosen = logits.argmax(-1).cpu().numpy()
            else:
                kept = keep_top(logits / temperature, top_k, top_p)
                chosen, _ = sampler(kept, (generator or policy.generator).random(len(kept)))
        for row in sorted(running):
            token, number = int(chosen[row]), owner[row]
            answers[number].append(token)
            if on_token is not None:
                on_token(number, token)
            length = len(answers[number])
            stopped = token in stop_tokens or (
                strings is not None
                and length >= min_new_tokens
                and strings.completed(prompts[number], answers[number]) is not None
            )
            if written is not None and written.write([row], [token], [stopped]):
                stopped = True  # nothing can follow that the grammar allows
            if not stopped and length < max_new_tokens:
                texts[row, lengths[row]] = token
                lengths[row] += 1
            elif waiting < len(prompts):
                begin(row, waiting)
                waiting += 1
            else:
                running.remove(row)
                if written is not None:
                    written.end(row)
    return answers


def generate(
    policy: Answerer,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    *,
    n: int = 1,
    stop_tokens: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    **sampling: object,
) -> list[str]:
    """Answers to prompts as texts, without the stop token and up to a stop string.

    An answer is what its ids add to the prompt's text: `prompt + answer` reads as all ids together.

    Args:
        policy: The policy that answers; it must have a tokenizer.
        prompts: Texts, or token ids.
        max_new_tokens: Token budget of an answer.
        n: Answers to each prompt, side by side in what is returned.
        stop_tokens: Ids that end an answer; the tokenizer's own if None.
        stop_strings: Texts that end an answer.
        **sampling: The other arguments of `generate_tokens`, such as `temperature` and
            `forbidden_tokens`.

    Raises:
        TokenizerError: The policy has no tokenizer.
    """
    tokenizer = _tokenizer_of(policy)
    ids = [encode_prompt(tokenizer, p) if isinstance(p, str) else p for p in prompts]
    stop_tokens = ends_of_answers(tokenizer, stop_tokens, stop_strings=stop_strings)
    answers = generate_tokens(
        policy,
        ids,
        max_new_tokens,
        n=n,
        stop_tokens=stop_tokens,
        stop_strings=stop_strings,
        **sampling,  # type: ignore[arg-type]
    )
    strings = StopStrings(stop_strings, tokenizer)

    def text_of(number: int, answer: list[int]) -> str:
        prompt = ids[number // n]
        if answer[-1] in stop_tokens:
            return decode_answer(tokenizer, prompt, answer[:-1])
        until = strings.completed(prompt, answer) if strings else None
        return decode_answer(tokenizer, prompt, answer) if until is None else until

    return [text_of(number, answer) for number, answer in enumerate(answers)]


def penalised(logits: Tensor, texts: NDArray[np.int64], penalty: float) -> Tensor:
    """Logits (n, V) with those of tokens in `texts` (n, L) divided, or multiplied, by `penalty`.

    Padding, the id V, is no token.
    """
    rows = torch.from_numpy(texts).to(logits.device)
    seen = torch.zeros(len(logits), logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
    seen = seen.scatter_(1, rows, True)[:, :-1]
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _bias(given: Mapping[int, float], policy: Answerer) -> Tensor:
    """The bias of every token, shape (V,)."""
    wrong = [token for token in given if not 0 <= token < policy.vocab_size]
    if wrong:
        raise ValueError(
            f"logit_bias names the token {wrong[0]}; the vocabulary has {policy.vocab_size}"
        )
    bias = torch.zeros(policy.vocab_size)
    for token, value in given.items():
        bias[token] = value
    return bias.to(policy.device)


def _tokenizer_of(policy: Answerer) -> Tokenizer:
    if policy.tokenizer is None:
        raise TokenizerError(
            "this policy has no tokenizer: set policy.tokenizer, or use generate_tokens without "
            "stop_strings"
        )
    return policy.tokenizer


def _check_numbers(
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    batch_size: int,
) -> None:
    if n < 1 or max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            f"n is {n}, max_new_tokens is {max_new_tokens} and batch_size {batch_size}; all must "
            "be 1 or more"
        )
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; it must be 0 or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be 1 or more, or None to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1, or None")

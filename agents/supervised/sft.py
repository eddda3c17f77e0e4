"""Supervised fine-tuning: a policy learns to answer from examples of answers.

An example is a text in pieces, and some pieces are answers, or a conversation that a frame turns
into ids. The token that ends an answer is learned too. Only answers count in the default loss.
Examples of a batch are laid end to end, and each attends to itself alone, so nothing is spent on
padding and no document sees another.

Ouyang et al., "Training language models to follow instructions with human feedback" (2022), stage
one.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.distribution.shares import in_shares
from agents.supervised.fitting import FitOptions, FitStep, Fitting
from policies import Policy, tokenizer_of
from policies.templates import keep_template
from textenv import Tokenizer
from textenv.errors import MalformedRecordError, TokenizerError
from textenv.frames import Frame, Message
from textenv.frames.chat_template import ChatTemplate, encode_pieces
from textenv.records import Records, example, human_assistant, read_records, transcript

SFTLoss = Callable[[Policy, Tensor, Tensor, Tensor], Tensor]
"""A function of a policy, tokens (S, L), learned places (S, L) and lengths (S,) to a scalar."""


@dataclass(frozen=True)
class Example:
    """A text in pieces, or a conversation that a frame turns into ids.

    Attributes:
        pieces: Pieces of text, each with whether it is an answer; none if a frame wraps `messages`.
        template: What wraps the messages: a template that has made the pieces from them, or a frame
            of an environment; None if the pieces are a text as it is.
        messages: The conversation; None for a text as it is.
    """

    pieces: tuple[tuple[str, bool], ...]
    template: ChatTemplate | Frame | None = None
    messages: tuple[Message, ...] | None = None

    @property
    def question(self) -> str:
        """The text before the first answer."""
        if not self.pieces:
            asked = takewhile(lambda message: message["role"] != "assistant", self.messages or ())
            return transcript(list(asked))
        before = takewhile(lambda piece: not piece[1], self.pieces)
        return "".join(text for text, _ in before)

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        template: ChatTemplate | Frame | None = None,
        *,
        frame_texts: bool = False,
    ) -> "Example":
        r"""An example from a record in one of the forms that `textenv.records` knows.

        Conversations (`messages`, `conversations`, `instruction` and others) are put into the
        template. Texts (`prompt` and `response`, `input` and `target`) stay as they are.

        >>> Example.from_record({"instruction": "Add.", "input": "1 + 1", "output": "2"}).pieces
        (('User: Add.\n1 + 1\nAssistant:', False), (' 2', True))

        Args:
            record: The record.
            template: Texts around the messages, `ChatTemplate()` if None, or the frame of an
                environment: its ids are then those of the environment's episodes. `load_frame`
                makes one from any template, such as the one that a model was published with.
            frame_texts: Put texts into the template too, as an environment with a frame does with
                prompts that are texts: one is what the user says, the other the answer.

        Raises:
            ValueError: It has another form, or no answer.
        """
        messages, prompt, answer = example(record)
        if messages is None and not frame_texts:
            return cls(((prompt, False), (answer, True)))
        if messages is None:
            messages = human_assistant(prompt) or [{"role": "user", "content": prompt}]
            messages.append({"role": "assistant", "content": answer.strip()})
        if isinstance(template, Frame):
            return cls((), template, tuple(messages))
        template = template or ChatTemplate()
        return cls(tuple(template.pieces(messages)), template, tuple(messages))

    def encode(self, tokenizer: Tokenizer, context: int) -> tuple[list[int], list[bool]]:
        """Ids and which of them are learned, cut to the first `context` + 1.

        The last id is predicted but never read. The very first id cannot be learned, because
        nothing stands before it.

        Raises:
            FrameError: The frame refuses the messages.
        """
        if isinstance(self.template, Frame):
            ids, learned = self.template.conversation(self.messages or ())
        else:
            ids, learned = encode_pieces(self.pieces, tokenizer)
        # Cut at the end: an answer's beginning needs the question, not the rest of the answer.
        return ids[: context + 1], [False, *learned[1:]][: context + 1]


def read_examples(
    source: Records,
    template: ChatTemplate | Frame | None = None,
    *,
    frame_texts: bool = False,
) -> list[Example]:
    """The examples of a file or of a dataset; see `Example.from_record`.

    Args:
        source: A `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file, perhaps compressed, or an
            iterable of records; see `textenv.records.read_records`.
        template: What wraps messages.
        frame_texts: Put texts into the template too.

    Raises:
        MalformedRecordError: Some records are not examples; the first ten of these are listed.
    """

    def parse(record: dict[str, Any]) -> Example:
        made = Example.from_record(record, template, frame_texts=frame_texts)
        if isinstance(made.template, Frame):  # refused here, where the line is known
            made.template.conversation(made.messages or ())
        return made

    return read_records(source, parse, "examples")


# -------------------------------------------------------------------- losses


def answer_loss(policy: Policy, tokens: Tensor, learned: Tensor, lengths: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the answers' tokens.

    Use it when the policy should learn to answer and not to write questions; otherwise use
    `whole_loss`.

    Args:
        policy: The policy that predicts.
        tokens: Examples, shape (S, L), int64, right-padded.
        learned: True at the answers' tokens, shape (S, L), bool; never at the first place.
        lengths: Tokens of each example, shape (S,), int64.
    """
    return _cross_entropy(policy, tokens, learned)


def whole_loss(policy: Policy, tokens: Tensor, learned: Tensor, lengths: Tensor) -> Tensor:
    """Mean cross-entropy in nats of all tokens, questions included.

    Use it when the policy should learn to write the questions too. The arguments are those of
    `answer_loss`.
    """
    return _cross_entropy(policy, tokens, _all_but_first(tokens, lengths))


def with_language_modelling(weight: float) -> SFTLoss:
    """`answer_loss` + `weight` * `whole_loss`: the auxiliary term of GPT-1.

    Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018),
    equation 5, where the weight lambda is 0.5. Use it to keep language modelling as a second goal
    while the policy learns to answer. A weight of 0 is `answer_loss`.
    """
    return partial(_both_losses, weight)


def _both_losses(
    weight: float, policy: Policy, tokens: Tensor, learned: Tensor, lengths: Tensor
) -> Tensor:
    # One pass serves both terms: the answers' tokens are among the counted ones.
    counted = _all_but_first(tokens, lengths)
    losses = _cross_entropies(policy, tokens, counted)
    return losses[learned[counted]].mean() + weight * losses.mean()


def _cross_entropy(policy: Policy, tokens: Tensor, counted: Tensor) -> Tensor:
    return _cross_entropies(policy, tokens, counted).mean()


def _cross_entropies(policy: Policy, tokens: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of each counted token in the order of the mask, shape (counted.sum(),)."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    # Up to the last counted token: later ones have no influence on it. Logits are computed only
    # where a token counts, since they are the largest array by far.
    read = (counted * places).amax(1).clamp(min=1)

    def of_rows(rows: Tensor) -> Tensor:
        some, chosen = tokens[rows], counted[rows]
        hidden = policy.hidden_before(some, chosen, read[rows])
        return F.cross_entropy(policy.logits(hidden).float(), some[chosen], reduction="none")

    return in_shares(of_rows, read, counted.sum(1))


def _all_but_first(tokens: Tensor, lengths: Tensor) -> Tensor:
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return (places > 0) & (places < lengths[:, None])


# -------------------------------------------------------------------- training


def sft_steps(
    policy: Policy,
    examples: Sequence[Example],
    *,
    epochs: int = 1,
    batch_size: int = 16,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.0,
    loss: SFTLoss = answer_loss,
    seed: int = 0,
    fitting: Fitting | None = None,
    **options: Unpack[FitOptions],
) -> Iterator[FitStep]:
    """Fine-tune `policy` on examples, one optimiser step at a time.

    Examples that are longer than the policy's context are cut at the end. An example that then has
    no answer left is not used. A policy of ours, or around a model of transformers, remembers the
    texts of the template of the first dialogue among the examples, see its `chat_template`.

    Args:
        policy: The policy to train; it must have a tokenizer.
        examples: The examples to learn from.
        epochs: Passes over all examples, each in another order.
        batch_size: Examples of an optimiser step.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        loss: `answer_loss`, `whole_loss` or `with_language_modelling(weight)`.
        seed: Seed of the order, and of what is dropped.
        fitting: A `Fitting` of your own, to save its state or to continue with a loaded one; it
            takes the place of the rates and the options.
        **options: Optimiser, schedule, warm-up, clipping, number type, dropout; see `Fitting`.
            InstructGPT took a `Dropout` of 0.2 at `residual`.

    Raises:
        MalformedRecordError: No example has an answer to learn.
        TokenizerError: The policy has no tokenizer.
    """
    if policy.tokenizer is None:
        raise TokenizerError("the policy has no tokenizer: set policy.tokenizer")
    encoded = _learnable(policy.tokenizer, policy.context, examples)
    if not encoded:
        raise MalformedRecordError(
            f"none of the {len(examples)} examples has an answer within the policy's context of "
            f"{policy.context} tokens"
        )
    template = next((e.template for e in examples if e.template is not None), None)
    if isinstance(template, Frame):
        template = template.template
    keep_template(policy, template)
    fitting = fitting or Fitting(
        policy,
        steps=steps_of(len(encoded), epochs, batch_size),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        **options,
    )
    for batch in islice(batches(len(encoded), epochs, batch_size, seed), fitting.done, None):
        arrays = pad([encoded[i] for i in batch], policy)
        # A generator expression: the loss is then computed inside the step, under its autocast.
        yield fitting.step(loss(policy, *some) for some in [arrays])


def learnable(policy: Policy, examples: Sequence[Example]) -> list[Example]:
    """The examples that have an answer within the policy's context."""
    tokenizer = tokenizer_of(policy)
    return [example for example in examples if any(example.encode(tokenizer, policy.context)[1])]


@torch.no_grad()
def held_out_answer_loss(
    policy: Policy, examples: Sequence[Example], loss: SFTLoss = answer_loss, batch_size: int = 64
) -> float:
    """Mean of `loss` over batches of examples that were kept apart, each example counted once.

    NaN if no example has an answer within the context.
    """
    assert policy.tokenizer is not None
    encoded = _learnable(policy.tokenizer, policy.context, examples)
    total = 0.0
    for begin in range(0, len(encoded), batch_size):
        some = encoded[begin : begin + batch_size]
        # Weighed by its examples, since the last batch may be smaller.
        total += loss(policy, *pad(some, policy)).item() * len(some)
    return total / len(encoded) if encoded else math.nan


def steps_of(count: int, epochs: int, batch_size: int) -> int:
    """Number of batches that `batches` gives."""
    return epochs * math.ceil(count / batch_size)


def batches(count: int, epochs: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Every number below `count` once in each epoch, in a new order each time, in batches."""
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(count).tolist()
        for begin in range(0, count, batch_size):
            yield order[begin : begin + batch_size]


def pad(
    encoded: Iterable[tuple[Sequence[int], Sequence[bool]]], policy: Policy
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (S, L) padded on the right, which of them are learned (S, L), and lengths (S,)."""
    rows = list(encoded)
    # A rectangle to pass around; the network packs it and computes nothing for the padding.
    lengths = np.array([len(ids) for ids, _ in rows])
    tokens = np.full((len(rows), lengths.max()), policy.pad_token, dtype=np.int64)
    learned = np.zeros(tokens.shape, dtype=bool)
    for row, (ids, flags) in enumerate(rows):
        tokens[row, : len(ids)] = ids
        learned[row, : len(ids)] = flags
    arrays = (tokens, learned, lengths)
    tokens_t, learned_t, lengths_t = (torch.from_numpy(x).to(policy.device) for x in arrays)
    return tokens_t, learned_t, lengths_t


def _learnable(
    tokenizer: Tokenizer, context: int, examples: Iterable[Example]
) -> list[tuple[list[int], list[bool]]]:
    """Ids and learned places of the examples that have an answer within the context."""
    encoded = (example.encode(tokenizer, context) for example in examples)
    return [(ids, learned) for ids, learned in encoded if any(learned)]

"""What a loss is tried on: fixed batches, and every batch of a tiny environment.

A policy is a table of logits, so that the gradient of a loss has one row for each choice. In a
probe each sequence has logits of its own; in the oracle those of equal beginnings are shared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

PROBE_GROUPS, PROBE_SIZE = 3, 4
VOCABULARY, STOP = 6, 5


@dataclass(frozen=True)
class LossBatch:
    """S sequences of at most L tokens, right-padded, answers to one prompt side by side.

    Attributes:
        tokens: Prompts and answers, shape (S, L), int64, right-padded with 0.
        mask: True at the answers' tokens, shape (S, L), bool.
        logits: Of the choice of each token (not of the next one), shape (S, L, V), float64, with
            gradient. Nothing but 0 is added to them where nothing was chosen.
        old_logprobs: Log-probabilities under the policy that sampled, shape (S, L).
        ref_logprobs: Log-probabilities under the reference, shape (S, L).
        values: Of the text before each token, shape (S, L).
        scores: Of whole answers, shape (S,).
        groups: Equal for answers to one prompt, shape (S,), int64.
        kl_coef: The weight of the KL to the reference that the loss is asked for.
        advantages: What the function of the advantages made of the scores, (S,) or (S, L).
        parts: How many batches make one optimiser step.
        step_answers: Answers in all of them.
        step_tokens: Chosen tokens in all of them.
    """

    tokens: Tensor
    mask: Tensor
    logits: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    scores: Tensor
    groups: Tensor
    kl_coef: float = 0.0
    advantages: Tensor | None = None
    parts: int = 1
    step_answers: int = 0
    step_tokens: int = 0

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.tokens)

    @cached_property
    def logprobs(self) -> Tensor:
        """Log-probability of each token, shape (S, L), with gradient."""
        return _chosen(self.logits, self.tokens)

    @cached_property
    def entropies(self) -> Tensor:
        """Entropy of each choice in nats, shape (S, L), with gradient."""
        logs = self.logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)

    @property
    def lengths(self) -> Tensor:
        """Chosen tokens of each sequence, shape (S,)."""
        return self.mask.sum(1)

    def select(self, rows: Tensor) -> LossBatch:
        """These sequences, whose logits are the same tensor's; `rows` is (k,) int64."""
        names = [
            *("tokens", "mask", "logits", "old_logprobs", "ref_logprobs", "values"),
            *("scores", "groups"),
        ]
        parts = {name: getattr(self, name)[rows] for name in names}
        advantages = None if self.advantages is None else self.advantages[rows]
        return dataclasses.replace(self, **parts, advantages=advantages)


Loss: TypeAlias = Callable[[LossBatch], Tensor]
Advantages: TypeAlias = Callable[[LossBatch], Tensor]


def _chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def probe(moved: float = 0.0, kl_coef: float = 0.0) -> LossBatch:
    """Three groups of four answers of 1 to 6 tokens, always the same.

    Prompts have 2 to 4 tokens; nine answers end with the stop token, three at the budget.

    Args:
        moved: Standard deviation of the log-ratios to the policy that sampled.
        kl_coef: As in `LossBatch`.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    prompts = torch.tensor([2, 4, 3]).repeat_interleave(PROBE_SIZE)[:, None]
    lengths = torch.tensor([1, 3, 6, 4, 2, 5, 6, 3, 6, 4, 2, 5])[:, None]
    places = torch.arange(10)[None]
    mask = (places >= prompts) & (places < prompts + lengths)
    tokens = torch.randint(0, STOP, mask.shape, generator=generator)
    ends = (places == prompts + lengths - 1) & (lengths < 6)
    tokens = torch.where(ends, STOP, tokens).where(places < prompts + lengths, 0)
    logits = normal(*mask.shape, VOCABULARY)
    logprobs = _chosen(logits, tokens)
    # Far from 0, 1 and each other: an epsilon beside a spread leaves no trace, a wrong one does.
    scores = 20 * normal(len(mask)) + 10 * torch.arange(PROBE_GROUPS).repeat_interleave(PROBE_SIZE)
    references, values, steps = normal(*mask.shape), normal(*mask.shape), normal(*mask.shape)
    return LossBatch(
        tokens=tokens,
        mask=mask,
        logits=logits.requires_grad_(),
        old_logprobs=logprobs - moved * steps,
        ref_logprobs=logprobs - 0.5 * references,
        values=5 * values,
        scores=scores,
        groups=torch.arange(PROBE_GROUPS).repeat_interleave(PROBE_SIZE),
        kl_coef=kl_coef,
        step_answers=len(mask),
        step_tokens=int(mask.sum()),
    )


def twice(batch: LossBatch) -> LossBatch:
    """Every sequence a second time, in groups of its own."""
    rows = torch.arange(len(batch)).repeat(2)
    double = batch.select(rows)
    groups = torch.cat([batch.groups, batch.groups + int(batch.groups.max()) + 1])
    logits = double.logits.detach().requires_grad_()
    return dataclasses.replace(
        double,
        groups=groups,
        logits=logits,
        step_answers=2 * batch.step_answers,
        step_tokens=2 * batch.step_tokens,
    )


class _Exact(NamedTuple):
    """Each batch of the oracle with its probability, and where its choices are in the table."""

    probability: float
    batch: LossBatch
    rows: Tensor


class Oracle:
    """Two prompts with four answers each, of 1, 2, 3 and 3 tokens; groups of two to each prompt.

    One letter and the stop token, at most three of them. A batch is a group for each prompt: 256
    batches, so that an expected update is a sum without sampling.
    """

    def __init__(self, kl_coef: float = 0.0, group: int = 2) -> None:
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.kl_coef, self.group = kl_coef, group
        # Rows: three beginnings for each of two prompts, and one for what nobody chooses.
        self.table, self.reference = 0.7 * normal(7, 4), 0.7 * normal(7, 4)
        # Tokens 2 and 3 stand in prompts alone. No infinity: 0 * inf would be NaN in an entropy.
        self.table[:, 2:] = self.reference[:, 2:] = -30.0
        answers = [[1], [0, 1], [0, 0, 1], [0, 0, 0]]
        self.tokens, self.mask = torch.zeros(8, 5, dtype=torch.int64), torch.zeros(8, 5).bool()
        self.places = torch.full((8, 5), 6)
        for row, (prompt, answer) in enumerate(product([[2], [3, 2]], answers)):
            begin = len(prompt)
            self.tokens[row, : begin + len(answer)] = torch.tensor(prompt + answer)
            self.mask[row, begin : begin + len(answer)] = True
            for number in range(len(answer)):
                self.places[row, begin + number] = 3 * (begin - 1) + number
        # Values are of the text before a token: any others would be no baseline.
        self.scores, self.values = normal(8), 0.3 * normal(7)[self.places]
        self.probabilities = self._sums(self.table).exp()

    def _sums(self, table: Tensor) -> Tensor:
        return (_chosen(table[self.places], self.tokens) * self.mask).sum(1)

    def batches(self) -> Iterator[_Exact]:
        """All 256 of them, with their probabilities and places in the table."""
        n, size = 4, self.group
        logprobs = _chosen(self.table[self.places], self.tokens)
        ref = _chosen(self.reference[self.places], self.tokens)
        for picked in product(range(n), repeat=2 * size):
            rows = torch.tensor([*picked[:size], *(n + row for row in picked[size:])])
            mask = self.mask[rows]
            yield _Exact(
                float(self.probabilities[rows].prod()),
                LossBatch(
                    tokens=self.tokens[rows],
                    mask=mask,
                    logits=self.table[self.places[rows]].requires_grad_(),
                    old_logprobs=logprobs[rows],
                    ref_logprobs=ref[rows],
                    values=self.values[rows],
                    scores=self.scores[rows],
                    groups=torch.arange(2).repeat_interleave(size),
                    kl_coef=self.kl_coef,
                    step_answers=len(rows),
                    step_tokens=int(mask.sum()),
                ),
                self.places[rows],
            )

    def exact_gradient(self) -> Tensor:
        """Of the mean over prompts of E[score] - kl_coef KL(policy || reference), shape (7, 4)."""
        table = self.table.clone().requires_grad_()
        own = self._sums(table)
        shaped = self.scores - self.kl_coef * (own - self._sums(self.reference)).detach()
        return torch.autograd.grad((own.exp() * shaped).sum() / 2, table)[0]

    def expected_update(self, gradient: Callable[[LossBatch], Tensor]) -> Tensor:
        """Minus the expected gradient of a loss in the table, shape (7, 4)."""
        total = torch.zeros_like(self.table)
        for probability, batch, rows in self.batches():
            found = gradient(batch).flatten(0, 1)
            total.index_add_(0, rows.flatten(), -probability * found)
        return total

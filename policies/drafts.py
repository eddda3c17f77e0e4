"""Texts that are probably coming, encoded in one pass before their tokens are chosen.

A choice is a function of the text so far and of its random number, so it does not matter when the
text was encoded. A policy with the numbers of an earlier checkpoint mostly says what that one said.
So the earlier answer is its draft: one pass encodes many of its tokens, and their hidden states are
there when they are asked for. Where the choice is another one, plain steps go on. What is chosen is
what plain steps would choose, up to rounding, whatever the drafts are.

Like the prefix cache this goes by content: a row whose text is not the beginning of its draft reads
the text that it has.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cache import Plan, PrefixCache, common_prefix
from policies.rows import RowStore

AT_LEAST = 8
"""This many tokens of a draft are read at first."""

_NOTHING = -1
"""Behind the end of a draft; no token equals it."""


class Encoder(Protocol):
    """What is asked of a policy; see `policies.policy.Policy`."""

    def extend(self, store: Any, plan: Plan) -> Tensor:
        """Encode the tokens of `plan`."""
        ...


class Drafts:
    """What the rows of a cache will probably read, and the hidden states along it.

    Args:
        rows: Number of rows.
        capacity: Length of the observations.

    Attributes:
        read_tokens: Tokens that were encoded ahead so far.
        kept_tokens: How many of these were then asked for.
    """

    def __init__(self, rows: int, capacity: int):
        self.read_tokens = self.kept_tokens = 0
        self._texts = np.full((rows, capacity), _NOTHING, dtype=np.int64)
        self._ends = np.zeros(rows, dtype=np.int64)
        # States are known of the tokens of a draft from `_begin` to `_until`.
        self._begin, self._until = np.zeros((2, rows), dtype=np.int64)
        self._kept = np.zeros(rows, dtype=np.int64)
        self._on = np.zeros(rows, dtype=bool)
        self._states: Tensor | None = None

    def give(self, row: int, text: NDArray[np.int64]) -> None:
        """Let `row` have `text`, prompt and answer, as its draft; what is too long is left out."""
        self._ends[row] = end = min(len(text), self._texts.shape[1])
        self._texts[row] = _NOTHING
        self._texts[row, :end] = text[:end]
        self._until[row], self._kept[row], self._on[row] = 0, 0, True

    def forget(self) -> None:
        """Forget hidden states: the weights have changed."""
        self._until[:] = 0

    def last_hidden(
        self,
        policy: Encoder,
        cache: PrefixCache,
        observations: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> Tensor:
        """See `Policy.last_hidden`; observations are ids (k, L) of the rows of `cache`."""
        rows = cache.rows
        if not (self._on[rows].any() and isinstance(cache.store, RowStore)):
            return _plain(policy, cache, observations, lengths)
        cache.drop_if_weights_changed()
        on = common_prefix(observations, self._texts[rows]) >= lengths
        self._on[rows] = on
        last = lengths - 1
        known = on & (self._begin[rows] <= last) & (last < self._until[rows])
        self.kept_tokens += int(known.sum())
        self._kept[rows[known]] += 1
        if known.all():
            return self._known(rows, last)
        rest = np.flatnonzero(~known)
        part = cache if len(rest) == len(rows) else cache.some(rest)
        hidden = self._read(policy, part, observations[rest], lengths[rest], on[rest])
        if part is cache:
            return hidden
        cache.encoded_tokens += part.encoded_tokens
        both = hidden.new_empty(len(rows), hidden.shape[1])
        both[torch.from_numpy(rest)] = hidden
        both[torch.from_numpy(known)] = self._known(rows[known], last[known])
        return both

    def _read(
        self,
        policy: Encoder,
        cache: PrefixCache,
        observations: NDArray[np.int64],
        lengths: NDArray[np.int64],
        on: NDArray[np.bool_],
    ) -> Tensor:
        """The states of the last tokens of rows, (k, n_embd); drafts are read on where `on`."""
        rows, last = cache.rows, lengths - 1
        # As much again as was kept so far: little is read in vain, and few passes read a draft.
        further = np.maximum(self._kept[rows], AT_LEAST)
        # Nothing is chosen behind the last token of a draft.
        ends = np.where(on, np.minimum(lengths + further, self._ends[rows] - 1), 0)
        if (ends <= lengths).all():
            return _plain(policy, cache, observations, lengths)
        ends = np.maximum(ends, lengths)
        texts = np.where(on[:, None], self._texts[rows], observations)
        for plan in cache.plans(texts, lengths, ends):
            hidden = policy.extend(cache.store, plan)
        if self._states is None:
            self._states = hidden.new_zeros(*self._texts.shape, hidden.shape[1])
        self._states[torch.from_numpy(plan.rows), torch.from_numpy(plan.positions)] = hidden
        self._begin[rows], self._until[rows] = last, ends
        self.read_tokens += int((ends - lengths).sum())
        return self._known(rows, last)

    def _known(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> Tensor:
        """The states of tokens that were read, (k, n_embd)."""
        assert self._states is not None
        return self._states[torch.from_numpy(rows), torch.from_numpy(places)]


def _plain(
    policy: Encoder,
    cache: PrefixCache,
    observations: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> Tensor:
    for plan in cache.plans(observations, lengths):
        hidden = policy.extend(cache.store, plan)
    return hidden

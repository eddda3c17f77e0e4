"""Texts that are probably coming, encoded in one pass before their tokens are chosen.

A choice is a function of the text so far and of its random number. It does not matter when the text
was encoded: a policy that chooses with the numbers of an earlier one, or of an earlier checkpoint of
itself, mostly says the same, so the earlier answer is encoded as a whole, and the hidden states are
there when they are asked for. Where the choice is another one, plain steps go on from there. What is
chosen is what plain steps would choose, up to rounding; drafts can be any texts.

Like the prefix cache this goes by content: a row that does not read its draft any more reads the
text that it has.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cache import Plan, PrefixCache, common_prefix
from policies.rows import RowStore

_NOTHING = -1
"""Behind the end of a draft; no token equals it."""


class Encoder(Protocol):
    """What is asked of a policy; see `policies.policy.Policy`."""

    @property
    def device(self) -> torch.device: ...  # noqa: D102
    def extend(self, store: object, plan: Plan) -> Tensor: ...  # noqa: D102
    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor: ...  # noqa: D102


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
        self._states: Tensor | None = None

    def give(self, row: int, text: NDArray[np.int64]) -> None:
        """Let `row` have `text`, prompt and answer, as its draft; what is too long is left out."""
        self._ends[row] = end = min(len(text), self._texts.shape[1])
        self._texts[row] = _NOTHING
        self._texts[row, :end] = text[:end]
        self._until[row] = 0

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
        cache.drop_if_weights_changed()
        rows = cache.rows
        on = common_prefix(observations, self._texts[rows]) >= lengths
        last = lengths - 1
        known = on & (self._begin[rows] <= last) & (last < self._until[rows])
        self.kept_tokens += int(known.sum())
        if known.all():
            return self._known(rows, lengths)
        rest = np.flatnonzero(~known)
        part = cache if len(rest) == len(rows) else cache.some(rest)
        for plan in part.plans(observations[rest], lengths[rest]):
            hidden = policy.extend(part.store, plan)
        if part is not cache:
            cache.encoded_tokens += part.encoded_tokens
        ahead = rest[on[rest]]
        self._read(policy, cache, rows[ahead], lengths[ahead])
        if len(rest) == len(rows):
            return hidden
        both = hidden.new_empty(len(rows), hidden.shape[1])
        both[torch.from_numpy(rest)] = hidden
        both[torch.from_numpy(known)] = self._known(rows[known], lengths[known])
        return both

    def _known(self, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
        """The states of the last tokens, (k, n_embd)."""
        assert self._states is not None
        return self._states[torch.from_numpy(rows), torch.from_numpy(lengths - 1)]

    def _read(
        self,
        policy: Encoder,
        cache: PrefixCache,
        rows: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> None:
        """Encode the drafts of `rows` behind their first `lengths` tokens, which are encoded."""
        ends = self._ends[rows] - 1  # nothing is chosen behind the last token
        wanted = ends > lengths
        rows, begins, ends = rows[wanted], lengths[wanted], ends[wanted]
        if not len(rows):
            return
        hidden = _along(policy, cache, self._texts, rows, begins, ends)
        if self._states is None:
            self._states = hidden.new_zeros(*self._texts.shape, hidden.shape[1])
        counts = ends - begins
        at = np.arange(len(hidden)) - np.repeat(counts.cumsum() - counts - begins, counts)
        flat = torch.from_numpy(np.repeat(rows, counts)), torch.from_numpy(at)
        self._states[flat] = hidden
        self._begin[rows], self._until[rows] = begins, ends
        self.read_tokens += len(hidden)


def _along(
    policy: Encoder,
    cache: PrefixCache,
    texts: NDArray[np.int64],
    rows: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Tensor:
    """Hidden states of the tokens from `begins` to `ends` of `rows`, row after row, (N, n_embd)."""
    if isinstance(cache.store, RowStore):
        for plan in cache.ahead(texts, rows, begins, ends):
            hidden = policy.extend(cache.store, plan)
        return hidden
    # A network that keeps something else: a pass of its own over whole rows.
    tokens = torch.from_numpy(texts[rows, : ends.max() + 1]).to(policy.device)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    first, last = (torch.from_numpy(x).to(tokens.device)[:, None] for x in (begins, ends))
    chosen = (places > first) & (places <= last)
    return policy.hidden_before(tokens, chosen, last.squeeze(1))

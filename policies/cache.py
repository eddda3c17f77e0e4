"""The content-keyed prefix cache.

A policy is a pure function of the observation. The cache remembers which tokens each row has
encoded. For a new observation it keeps the longest prefix that some row has encoded already, and
names the tokens that are left. A reset, a jump of ten tokens or a branch need no signal: the
contents differ. Nothing stale can be read, since what does not match is encoded again.
"""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

_NOTHING = -1
"""Marks a place that holds no encoded token; no token of an observation equals it."""

WORTH_A_PASS = 16
"""Rows wait for the beginnings of others only if that saves this many tokens altogether. With
fewer, the extra pass costs more than it saves."""


class Store(Protocol):
    """What a network keeps of encoded tokens, row by row, such as keys and values."""

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        ...

    def clear(self) -> None:
        """Forget all rows."""
        ...


class Ahead(Protocol):
    """Hidden states that are known before they are asked for: `policies.drafts.Drafts`."""

    def last_hidden(
        self,
        policy: Any,
        cache: "PrefixCache",
        observations: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> Tensor:
        """See `Policy.last_hidden`."""
        ...

    def give(self, row: int, text: NDArray[np.int64]) -> None:
        """Let `row` have this draft."""
        ...

    def forget(self) -> None:
        """Forget all of them."""
        ...


class Plan(NamedTuple):
    """Tokens to encode, row after row in one flat list of N.

    Attributes:
        tokens: Their ids, shape (N,), int64.
        rows: The row each belongs to, shape (N,).
        positions: Its position in that row, shape (N,).
        counts: Tokens of each row that takes part, shape (k,); they sum to N.
        every: The hidden states of all tokens are asked for, (N, n_embd), instead of those of the
            rows' last tokens. Only stores of the kind `policies.rows.RowStore` are asked so.
    """

    tokens: NDArray[np.int64]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    counts: NDArray[np.int64]
    every: bool = False


def _count_writes(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Raise the version counters of an optimiser's parameters.

    Fused kernels, such as those of torch and bitsandbytes, write without raising them.
    """
    for group in optimizer.param_groups:
        increment_version(group["params"])


register_optimizer_step_post_hook(_count_writes)


class PrefixCache:
    """Which tokens each of `num_rows` rows has encoded under the present weights.

    Args:
        num_rows: Number of rows of the observations.
        capacity: Length of the observations.
        store: Where the network keeps what it has encoded, such as keys and values.
        weights: The parameters whose change makes everything stale.

    Attributes:
        encoded_tokens: How many tokens have been encoded so far; tests and benchmarks read it.
        drafts: What the rows will probably read; see `policies.drafts`.
    """

    def __init__(self, num_rows: int, capacity: int, store: Store, weights: Iterable[Tensor]):
        self.store = store
        self.encoded_tokens = 0
        self.drafts: Ahead | None = None
        self._tokens = np.full((num_rows, capacity), _NOTHING, dtype=np.int64)
        self._rows, self._partial = np.arange(num_rows), False
        self._weights = list(weights)
        self._version = self._weights_version()

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that the observations have; all but for a cache of `some`."""
        return self._rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and capacity."""
        return len(self._rows), self._tokens.shape[1]

    def some(self, rows: NDArray[np.int64]) -> Self:
        """A cache for observations of `rows` alone, which shares what it holds with this one.

        For a policy that speaks in some rows while the others wait: those keep what was encoded of
        them and cost nothing. It counts its own encoded tokens.

        Args:
            rows: Numbers of rows of this cache, each once, shape (k,), int64.
        """
        self.drop_if_weights_changed()
        view = copy.copy(self)
        view._rows, view._partial, view.encoded_tokens = self._rows[rows], True, 0
        return view

    def forget(self) -> None:
        """Forget what has been encoded."""
        self._tokens.fill(_NOTHING)
        self.store.clear()
        if self.drafts is not None:
            self.drafts.forget()

    def clear(self) -> None:
        """Forget what has been encoded, and pack weights anew.

        Call it only after changes that leave no trace in a parameter: writes through
        `parameter.data`, or another parameter in its place (`load_state_dict(assign=True)`).
        """
        increment_version(self._weights)
        self.forget()

    def plans(
        self,
        observations: NDArray[np.int64],
        lengths: NDArray[np.int64],
        ends: NDArray[np.int64] | None = None,
    ) -> Iterable[Plan]:
        """What has to be encoded, in order, so that every row's last token has a hidden state.

        Usually that is one plan. Where several rows need the same beginning, as at the start of a
        group, a first plan encodes it for one of them and the others copy it. Where groups begin
        alike, as with worked examples, there is another one for what they share. The last plan ends
        with the last token of every row, in the order of the rows.

        A plan counts as carried out when the next one is asked for. If one fails half-way, it and
        the rest are forgotten.

        Args:
            observations: Shape (num_rows, capacity), int64, right-padded.
            lengths: Tokens in each row, shape (num_rows,), at least 1.
            ends: If given, the last plan reads on up to here in each row, shape (num_rows,), and
                asks for the hidden states of all its tokens: from the row's last one, or earlier,
                to what stands behind it in `observations`.
        """
        self.drop_if_weights_changed()
        if self._partial:  # rows that do not take part have nothing new
            some, counts = observations, lengths
            observations, lengths = self._tokens.copy(), np.ones(len(self._tokens), dtype=np.int64)
            observations[self._rows], lengths[self._rows] = some, counts
            if ends is not None:
                further, ends = ends, lengths.copy()
                ends[self._rows] = further
        # The last token is always encoded anew, since its hidden state is what is asked for.
        starts = np.minimum(common_prefix(observations, self._tokens), lengths - 1)
        # Rows with one new token have nothing to gain from others: most steps end here.
        behind = np.flatnonzero(lengths - starts > 1)
        if len(behind):
            self._borrow(observations, lengths, starts, behind)
            while len(leaders := _leaders(observations, lengths, starts, behind)):
                plan = self._plan(observations, lengths - 1, starts, leaders)
                yield plan
                self._remember(plan, lengths - 1)
                starts[leaders] = lengths[leaders] - 1
                self._borrow(observations, lengths, starts, behind)
        until = lengths if ends is None else ends
        plan = self._plan(observations, until, starts, self._rows)
        yield plan if ends is None else plan._replace(every=True)
        self._remember(plan, until)

    def _plan(
        self,
        observations: NDArray[np.int64],
        ends: NDArray[np.int64],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> Plan:
        """Encode `starts` to `ends` of `rows`; what they hold from `starts` on is lost."""
        counts = (ends - starts)[rows]
        total = int(counts.sum())
        if total == len(rows):  # one new token each, the common case: no need to spread anything
            flat_rows, positions = rows, starts[rows]
        else:
            flat_rows = np.repeat(rows, counts)
            offsets = np.repeat(np.cumsum(counts) - counts - starts[rows], counts)
            positions = np.arange(total) - offsets
        tokens = observations[flat_rows, positions]
        # Until the plan is carried out, the rows end where it begins.
        self._tokens[rows, starts[rows]] = _NOTHING
        self.encoded_tokens += total
        return Plan(tokens, flat_rows, positions, counts)

    def _remember(self, plan: Plan, ends: NDArray[np.int64]) -> None:
        """Note what `plan` has encoded, up to `ends` of its rows."""
        self._tokens[plan.rows, plan.positions] = plan.tokens
        rows = plan.rows[np.cumsum(plan.counts) - 1]
        rows = rows[ends[rows] < self._tokens.shape[1]]
        self._tokens[rows, ends[rows]] = _NOTHING  # ids behind this mark are never compared

    def _borrow(
        self,
        observations: NDArray[np.int64],
        lengths: NDArray[np.int64],
        starts: NDArray[np.int64],
        behind: NDArray[np.int64],
    ) -> None:
        """Let rows begin with the longest prefix that another row has encoded; raises `starts`."""
        for row in behind:
            matched = np.minimum(common_prefix(observations[row], self._tokens), lengths[row] - 1)
            source = int(matched.argmax())
            if matched[source] > starts[row]:
                starts[row] = matched[source]
                # Marked empty while the store copies, in case that fails.
                self._tokens[row] = _NOTHING
                self.store.copy_prefix(source, int(row), int(starts[row]))
                self._tokens[row, : starts[row]] = observations[row, : starts[row]]

    def drop_if_weights_changed(self) -> None:
        """Forget what the weights before have encoded."""
        version = self._weights_version()
        if version != self._version:
            self.forget()
            self._version = version

    def _weights_version(self) -> tuple[int, ...]:
        # In-place operations raise a tensor's version counter; replaced data has a new address.
        return tuple(w._version for w in self._weights) + tuple(w.data_ptr() for w in self._weights)


def common_prefix(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Length of the common beginning along the last axis; the arrays broadcast."""
    differ = a != b
    return np.where(differ.any(-1), differ.argmax(-1), differ.shape[-1])


def _leaders(
    observations: NDArray[np.int64],
    lengths: NDArray[np.int64],
    starts: NDArray[np.int64],
    behind: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Rows whose beginning is worth encoding first, since others in `behind` need it too.

    Each row is compared with the rows before it. If it shares enough with one of them, that one
    becomes a leader and this one waits for it.
    """
    candidates: list[int] = []
    leaders = set()
    saved = 0
    for row in behind:
        missing = lengths[row] - 1 - starts[row]
        if missing == 0:
            continue
        if candidates:
            common = common_prefix(observations[row], observations[candidates])
            shared = np.minimum(common, np.minimum(lengths[candidates], lengths[row]) - 1)
            best = int(shared.argmax())
            taken = int(shared[best]) - int(starts[row])
            if 2 * taken >= missing:  # with less, it may have more in common with a later row
                leaders.add(candidates[best])
                saved += taken
                continue
        candidates.append(int(row))
    return np.array(sorted(leaders) if saved >= WORTH_A_PASS else [], dtype=np.int64)

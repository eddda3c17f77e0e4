"""Reading beginnings of answers: each is encoded once while there is room for it.

The rows of one prefix cache hold the beginnings that a search is at. A text that is one token
longer goes on in the row of the one before it. A branch takes another row, which begins with a
copy of what they share. The row that was used least recently gives way.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies import Policy

Text: TypeAlias = tuple[int, ...]


class Read(NamedTuple):
    """What a policy says of n texts.

    Attributes:
        logits: Of the next token, divided by the temperature, shape (n, V), float32.
        values: Estimated values, shape (n,), float64; zeros of a head that was never trained.
        encoded: Tokens that were encoded for each text, shape (n,), int64.
    """

    logits: Tensor
    values: NDArray[np.float64]
    encoded: NDArray[np.int64]


class PrefixReader:
    """Reads texts by a policy, a batch at a time.

    Args:
        policy: The policy, whose weights stay as they are meanwhile.
        rows: Texts that are kept; every one of them needs the memory of a row of a rollout.
        width: Tokens of the longest text.
        temperature: Logits are divided by it.
    """

    def __init__(self, policy: Policy, rows: int, width: int, temperature: float = 1.0):
        self.policy, self.temperature = policy, temperature
        self._cache = policy.new_cache(rows, width)
        self._held: list[Text] = [()] * rows
        self._row_of: dict[Text, int] = {}
        self._used = np.zeros(rows, dtype=np.int64)
        self._clock = 0

    @torch.inference_mode()
    def read(self, texts: Sequence[Text]) -> Read:
        """What the policy says behind each text; equal texts are read once.

        Args:
            texts: Token ids, prompt included, none of them empty.
        """
        distinct = list(dict.fromkeys(texts))
        rows = len(self._held)
        parts = [self._read(distinct[i : i + rows]) for i in range(0, len(distinct), rows)]
        logits = torch.cat([part.logits for part in parts])
        values = np.concatenate([part.values for part in parts])
        encoded = np.concatenate([part.encoded for part in parts])
        if len(distinct) == len(texts):
            return Read(logits, values, encoded)
        number = {text: place for place, text in enumerate(distinct)}
        places = np.array([number[text] for text in texts])
        _, first = np.unique(places, return_index=True)
        paid = np.zeros(len(texts), dtype=np.int64)
        paid[first] = encoded[places[first]]  # by the first text that asked
        return Read(logits[torch.from_numpy(places)], values[places], paid)

    def _read(self, texts: Sequence[Text]) -> Read:
        rows = self._rows_for(texts)
        width = self._cache.shape[1]
        observations = np.full((len(texts), width), self.policy.pad_token, dtype=np.int64)
        lengths = np.array([len(text) for text in texts])
        for place, text in enumerate(texts):
            observations[place, : len(text)] = text
        encoded = np.zeros(len(self._held), dtype=np.int64)
        cache = self._cache.some(rows)
        for plan in cache.plans(observations, lengths):
            hidden = self.policy.extend(cache.store, plan)
            encoded += np.bincount(plan.rows, minlength=len(encoded))
        logits = self.policy.choices(hidden)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        values = self.policy.value_head(hidden).double().squeeze(1).cpu().numpy()
        return Read(logits.clone(), values, encoded[rows])

    def _rows_for(self, texts: Sequence[Text]) -> NDArray[np.int64]:
        """A row for each text: that of itself, of the text one token shorter, or the oldest."""
        self._clock += 1
        chosen: list[int | None] = []
        taken: set[int] = set()
        for text in texts:
            row = self._row_of.get(text, self._row_of.get(text[:-1]))
            if row is None or row in taken:
                chosen.append(None)
            else:
                chosen.append(row)
                taken.add(row)
        oldest = iter(row for row in self._used.argsort(kind="stable").tolist() if row not in taken)
        rows = [next(oldest) if row is None else row for row in chosen]
        for row, text in zip(rows, texts, strict=True):
            if self._row_of.get(self._held[row]) == row:
                del self._row_of[self._held[row]]
            self._held[row] = text
        self._row_of.update(zip(texts, rows, strict=True))
        self._used[rows] = self._clock
        return np.array(rows, dtype=np.int64)

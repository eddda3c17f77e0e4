"""Texts that grow by one token at a time, one in each row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.prompts import Prompt

EVERY_ROW = slice(None)
"""The index of all rows; unlike an array of indices it selects without a copy."""


class GrowingTexts:
    """`count` rows of token ids; each is a prompt and its answer so far.

    Args:
        count: Number of rows.
        prompt_room: Tokens that a prompt may have.
        budget: Tokens that an answer may have.
        pad_token: Fills the places that are not used yet.

    Attributes:
        tokens: Right-padded ids, shape (count, prompt_room + budget), int64.
        prompt_lengths: How many of them are the prompt, shape (count,), int64.
        prompts: The prompts, one for each row.
    """

    def __init__(self, count: int, prompt_room: int, budget: int, pad_token: int):
        self._budget, self._pad_token = budget, pad_token
        self.tokens = np.full((count, prompt_room + budget), pad_token, dtype=np.int64)
        self.prompt_lengths = np.zeros(count, dtype=np.int64)
        self.prompts = [Prompt("")] * count
        # Places in `tokens` read as one long line: where each row begins, where its next token
        # goes, and where the next token would go when the budget is spent. With one place instead
        # of a row and a column, appending is several times as fast.
        self._origins = np.arange(count) * (prompt_room + budget)
        self._next = self._origins.copy()
        self._limits = self._origins + budget
        # Where the row is to be looked at: its limit, or before that the end of a turn's budget.
        self._halts = self._limits.copy()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens, shape (count,), int64; 0 where no text was ever begun."""
        return self._next - self._origins

    @property
    def answer_lengths(self) -> NDArray[np.int64]:
        """Number of tokens after the prompt, shape (count,), int64."""
        return self._next - self._limits + self._budget

    def spent(self) -> NDArray[np.bool_]:
        """Whether the answer, or its present turn, has used up its budget, shape (count,), bool."""
        return np.equal(self._next, self._halts)

    def limit_turn(self, row: int, tokens: int) -> None:
        """Let the budget be spent after `tokens` more tokens, if the answer's is not before."""
        self._halts[row] = min(self._next[row] + tokens, self._limits[row])

    def begin(
        self,
        row: int,
        prompt: Prompt,
        prompt_tokens: NDArray[np.int64],
        answer: NDArray[np.int64] | None,
    ) -> None:
        """Replace the text of `row` by a prompt that fits, and by the beginning of an answer."""
        text, length = self.tokens[row], len(prompt_tokens)
        text[:length] = prompt_tokens
        text[length:] = self._pad_token
        origin = self._origins[row]
        self._limits[row] = self._halts[row] = origin + length + self._budget
        if answer is not None:
            text[length : length + len(answer)] = answer
            length += len(answer)
        self._next[row] = origin + length
        self.prompt_lengths[row] = len(prompt_tokens)
        self.prompts[row] = prompt

    def append(self, rows: NDArray[np.intp] | slice, tokens: NDArray[np.int64]) -> None:
        """Put one token behind each of `rows`; no row may have spent its budget."""
        self.tokens.put(self._next[rows], tokens)
        self._next[rows] += 1

    def extend(self, row: int, tokens: Sequence[int]) -> None:
        """Put several tokens behind `row`; they must fit its budget."""
        at = self._next[row] - self._origins[row]
        self.tokens[row, at : at + len(tokens)] = tokens
        self._next[row] += len(tokens)

    def prompt_tokens(self, row: int) -> NDArray[np.int64]:
        """Ids of one prompt, shape (prompt_length,), int64; a copy."""
        return self.tokens[row, : self.prompt_lengths[row]].copy()

    def answer(self, row: int) -> NDArray[np.int64]:
        """Ids of one answer so far, shape (answer_length,), int64; a copy."""
        start, end = self.prompt_lengths[row], self._next[row] - self._origins[row]
        return self.tokens[row, start:end].copy()

    def state_dict(self) -> dict[str, Any]:
        """The state as numpy arrays and plain types."""
        return {
            "tokens": self.tokens.copy(),
            "lengths": self.lengths,
            "prompt_lengths": self.prompt_lengths.copy(),
            "prompts": [prompt.to_json() for prompt in self.prompts],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` gave; the number of rows and the room must be equal."""
        self.tokens[...] = state["tokens"]
        self.prompt_lengths[...] = state["prompt_lengths"]
        self.prompts = [Prompt.from_json(prompt) for prompt in state["prompts"]]
        self._next = self._origins + state["lengths"]
        self._limits = self._origins + self.prompt_lengths + self._budget
        self._halts = self._limits.copy()

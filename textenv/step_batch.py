"""The rows of one step, as a dense reward sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.prompts import Prompt
from textenv.tokenizers import Tokenizer, decode_answer
from textenv.worlds import Reply, Turn


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The rows that have just grown by one token, as a dense reward sees them.

    Attributes:
        tokens: Prompt and answer so far, the new token included, right-padded with the vocabulary
            size, shape (k, L), int64.
        lengths: Number of ids that are not padding, shape (k,), int64.
        prompt_lengths: How many of them are the prompt, shape (k,), int64.
        actions: The new tokens, `tokens[i, lengths[i] - 1]`, shape (k,), int64.
        ended: Whether this was the last step of the episode, shape (k,), bool.
        tokenizer: Turns ids into text.
        prompts: What each row began with, k of them.
        is_stop: Which tokens end an answer or a turn, shape (V,), bool; None if none does.
        turns: Of a conversation the turns and replies before the present turn, oldest first, one
            sequence a row; empty otherwise.
        turn_starts: Of a conversation how many ids stand between the prompt and the present turn,
            shape (k,), int64; None otherwise.
        until: By row, the text before the stop string that the new token has completed, or None;
            empty if none was.
        drawn: Of a conversation what was drawn for each row, whose world may begin with something
            else; empty otherwise.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    actions: NDArray[np.int64]
    ended: NDArray[np.bool_]
    tokenizer: Tokenizer
    prompts: Sequence[Prompt] = field(default=(), repr=False)
    is_stop: NDArray[np.bool_] | None = None
    turns: Sequence[Sequence[Turn | Reply]] = field(default=(), repr=False)
    turn_starts: NDArray[np.int64] | None = None
    until: Mapping[int, str | None] = field(default_factory=dict, repr=False)
    drawn: Sequence[Prompt] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """Each row's record: the columns, such as `answer`, and as `prompt` what was drawn."""
        return [
            {**began.columns, "prompt": drawn.record["prompt"]}  # a world may add columns
            for drawn, began in zip(self.drawn or self.prompts, self.prompts, strict=True)
        ]

    @cached_property
    def stopped(self) -> NDArray[np.bool_]:
        """Whether the new token is a stop token, shape (k,), bool."""
        if self.is_stop is None:
            return np.zeros(len(self), dtype=bool)
        return self.is_stop[self.actions]

    @cached_property
    def texts(self) -> Sequence[str]:
        """Each row's answer so far, without what stops it; of a conversation the present turn.

        They are decoded when they are first asked for, and that takes time at every step: an answer
        of n tokens is then decoded n times.
        """
        return [self._text(row) for row in range(len(self))]

    def _text(self, row: int) -> str:
        until = self.until.get(row)
        if until is not None:
            return until
        start, end = int(self.prompt_lengths[row]), int(self.lengths[row])
        if self.turn_starts is not None:
            start += int(self.turn_starts[row])
        ids = self.tokens[row, : end - int(self.stopped[row])].tolist()
        # The prompt's own text saves decoding it; a later turn begins behind more than the prompt.
        known = self.prompts[row].text if self.prompts and self.turn_starts is None else ""
        return decode_answer(self.tokenizer, ids[:start], ids[start:], known)

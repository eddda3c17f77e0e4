"""The finished episode that a reward sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.tokenizers import Tokenizer, decode_answer
from textenv.worlds import Reply, Turn, World

STOP, LENGTH = "stop", "length"
"""Values of `info["finish_reason"]`: a stop token was chosen, or the token budget was used up."""

GRAMMAR_UNFINISHED = "grammar_unfinished"
"""Another value: the answer ended before it was a whole text of the environment's grammar."""


@dataclass(frozen=True, eq=False)
class Episode:
    """One prompt and the answer that was generated for it, from reset to end.

    Attributes:
        prompt: The text of the prompt, without its frame. Where there is none, the prompt with
            `text` behind it is the text of all ids; see `textenv.tokenizers.decode_answer` for the
            two exceptions.
        prompt_tokens: Ids of the prompt, shape (prompt_length,), int64.
        tokens: Ids of the answer exactly as they were chosen, shape (answer_length,), int64. A
            sampled stop token is the last of them.
        finish_reason: `"stop"` after a stop token or a stop string, `"length"` when the budget was
            used up, `"grammar_unfinished"` if there is a grammar and the answer is no whole text of
            it; of a conversation `"world"`, `"turns"`, `"length"` or `"error"`, after what
            ended it.
        turns: Of a conversation the agent's turns and the world's replies, oldest first.
        columns: The other columns of the prompt's record, such as `answer`.
        tokenizer: Turns ids into text.
        world: Of a conversation this episode's own `World`, whose state a reward may judge; None
            for a `BatchedWorld`, which is not one episode's.
        until: The text before the stop string that ended the answer; None if none did.
    """

    prompt: str
    prompt_tokens: NDArray[np.int64]
    tokens: NDArray[np.int64]
    finish_reason: str
    columns: Mapping[str, Any] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    turns: Sequence[Turn | Reply] = field(default=(), repr=False)
    world: World | None = field(default=None, repr=False)
    until: str | None = field(default=None, repr=False)

    @cached_property
    def text(self) -> str:
        """The answer as text up to what stopped it; of a conversation the agent's last turn."""
        for entry in reversed(self.turns):
            if isinstance(entry, Turn):
                return entry.text
        if self.until is not None:
            return self.until
        tokens = self.tokens[:-1] if self.finish_reason == STOP else self.tokens
        prompt_tokens = self.prompt_tokens.tolist()
        return decode_answer(self.tokenizer, prompt_tokens, tokens.tolist(), self.prompt)

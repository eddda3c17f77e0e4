"""The texts of all rows of an environment under their grammars."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenv.errors import GrammarError
from textenv.grammars.compiled import Compiled, compiled
from textenv.grammars.kinds import Grammar, OfRecord
from textenv.grammars.naming import grammar_of_record
from textenv.grammars.sentences import Sentence
from textenv.grammars.vocabulary import Vocabulary, vocabulary_of
from textenv.tokenizers.base import Tokenizer


class AnswerGrammar:
    """A grammar with the vocabulary and the budget that answers are written in.

    Args:
        grammar: Of all answers, or that of each prompt's record.
        tokenizer: Says which bytes its tokens are.
        stop_tokens: Ids that end an answer.
        forbidden: Ids that are never chosen.
        budget: Tokens that an answer may have, its stop token included.

    Attributes:
        grammar: As given.
        vocabulary: The tokens.
        budget: As given.

    Raises:
        GrammarError: It does not compile, the vocabulary cannot begin it, no stop token may be
            chosen, or its shortest text does not fit the budget.
        TokenizerError: The tokenizer does not say which bytes its tokens are.
        MissingExtraError: llguidance is not installed.
    """

    def __init__(
        self,
        grammar: Grammar | OfRecord,
        tokenizer: Tokenizer,
        stop_tokens: Sequence[int],
        forbidden: Sequence[int],
        budget: int,
    ):
        self.grammar, self.budget = grammar, budget
        self.vocabulary: Vocabulary = vocabulary_of(tokenizer, stop_tokens, forbidden)
        if not isinstance(grammar, OfRecord):
            made = compiled(grammar, self.vocabulary)
            if made.completion is not None and len(made.completion) > budget:
                raise GrammarError(
                    f"answers may have {budget} tokens, and the shortest text that was found of "
                    f"{made.name} has {len(made.completion)} with its stop token: raise "
                    "max_new_tokens"
                )

    def of(self, columns: Mapping[str, Any]) -> Compiled:
        """The compiled grammar of a prompt with these columns.

        Raises:
            GrammarError: The record has none, or it cannot be used.
        """
        grammar = self.grammar
        if isinstance(grammar, OfRecord):
            grammar = grammar_of_record(columns, grammar.column)
        return compiled(grammar, self.vocabulary)


class GrammarRows:
    """A text under a grammar in each of `count` rows.

    Args:
        grammar: What the texts are to be.
        count: Number of rows.

    Attributes:
        bits: Which tokens may come next in each row, packed as llguidance does, token t in bit
            t % 32 of number t // 32; shape (count, words), int32. All ones where nothing runs.
    """

    def __init__(self, grammar: AnswerGrammar, count: int):
        self._grammar = grammar
        self._texts: list[Sentence | None] = [None] * count
        self.bits = np.full((count, grammar.vocabulary.words), -1, dtype=np.int32)

    def begun(self, columns: Mapping[str, Any], answer: Sequence[int] = ()) -> Sentence:
        """A text that begins with the ids of `answer`, for `begin`.

        Raises:
            GrammarError: The grammar does not take them, or the record has none.
        """
        made = self._grammar.of(columns)
        text = Sentence(made, self._grammar.budget)
        for place, token in enumerate(answer):
            if not text.write(int(token)):
                written = b"".join(self._grammar.vocabulary.bytes_of[t] or b"" for t in answer)
                raise GrammarError(
                    f"an answer that begins with {written.decode(errors='replace')!r} is no text "
                    f"of {made.name}: token {int(token)} at place {place} cannot stand there, or "
                    "nothing can follow it"
                )
        return text

    def begin(self, row: int, text: Sentence) -> None:
        """Let a text run in `row`."""
        self._texts[row] = text
        self.bits[row] = text.bits

    def write(
        self, rows: Sequence[int], tokens: Sequence[int], stopped: Sequence[bool]
    ) -> list[int]:
        """Put one token behind each of `rows`; returns the rows whose text can be none any more.

        Args:
            rows: Row numbers.
            tokens: Their tokens.
            stopped: Whether they are stop tokens.
        """
        lost = []
        for row, token, stop in zip(rows, tokens, stopped, strict=True):
            text = self._texts[row]
            assert text is not None
            if not (text.finished if stop else text.write(token)):
                lost.append(row)
            self.bits[row] = text.bits
        return lost

    def finished(self, row: int) -> bool:
        """Whether the text of `row` may end where it is."""
        text = self._texts[row]
        return text is not None and text.finished

    def end(self, row: int) -> None:
        """No text runs in `row` any more."""
        self._texts[row] = None
        self.bits[row] = -1

    def masks(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.bool_]:
        """What may be chosen in `rows`, shape (k, V), bool; a new array."""
        size = self._grammar.vocabulary.size
        packed = self.bits[rows].view(np.uint8)
        return np.unpackbits(packed, axis=1, bitorder="little", count=size).view(bool)

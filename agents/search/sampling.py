"""Going on from many texts at once, each until it has ended or is long enough."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.search.answers import SingleAnswers
from agents.search.budget import Spent
from agents.search.reading import PrefixReader, Text
from policies.sampling import sample
from textenv.stop_strings import StopStrings


class Continue(NamedTuple):
    """A text to go on from.

    Attributes:
        prompt: Ids of the prompt.
        answer: Ids of the answer so far.
        generator: Source of the random numbers; None takes the likeliest tokens.
        spent: Where what is encoded is counted.
    """

    prompt: Text
    answer: Text
    generator: np.random.Generator | None
    spent: Spent


class Sampler:
    """Reads and samples for a search.

    Args:
        reader: Reads.
        rules: Say what may follow, and where answers end.
    """

    def __init__(self, reader: PrefixReader, rules: SingleAnswers):
        self.reader, self.rules = reader, rules

    def read(
        self, texts: Sequence[Continue]
    ) -> tuple[Tensor, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """Masked logits (n, V) behind the texts, and their values (n,)."""
        read = self.reader.read([text.prompt + text.answer for text in texts])
        for text, encoded in zip(texts, read.encoded.tolist(), strict=True):
            text.spent.encoded_tokens += encoded
        return self.rules.masked(read.logits, [len(text.answer) for text in texts]), read.values

    def sample(
        self,
        texts: Sequence[Continue],
        logits: Tensor,
        most: int | None = None,
        until: str | None = None,
    ) -> list[Text]:
        """What is said behind each text, until its answer has ended.

        Args:
            texts: None of them ended.
            logits: Masked, of the first token of each, shape (n, V).
            most: Stop after this many tokens.
            until: Stop where this text was said.
        """
        strings = None
        if until is not None:
            tokenizer = self.rules.tokenizer
            strings = StopStrings([until], tokenizer)
        said: list[list[int]] = [[] for _ in texts]
        going = list(range(len(texts)))
        while going:
            chosen = self._choose([texts[n] for n in going], logits)
            still = []
            for number, token in zip(going, chosen, strict=True):
                said[number].append(token)
                text, own = texts[number], said[number]
                if len(own) == most or self.rules.ended(text.prompt, (*text.answer, *own)):
                    continue
                if strings and strings.completed((*text.prompt, *text.answer), own) is not None:
                    continue
                still.append(number)
            going = still
            if going:
                longer = [texts[n]._replace(answer=(*texts[n].answer, *said[n])) for n in going]
                logits, _ = self.read(longer)
        return [tuple(own) for own in said]

    @staticmethod
    def _choose(texts: Sequence[Continue], logits: Tensor) -> list[int]:
        numbers = [0.0 if t.generator is None else t.generator.random() for t in texts]
        with torch.inference_mode():
            chosen = sample(logits, np.array(numbers))[0].tolist()
            likeliest = logits.argmax(-1).tolist()
        return [
            best if text.generator is None else token
            for text, token, best in zip(texts, chosen, likeliest, strict=True)
        ]

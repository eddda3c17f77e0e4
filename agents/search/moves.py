"""What a move of a search is: one token, or a segment of several that the policy samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.optimisation.bounds import Checked, bounded
from agents.search.reading import Text
from agents.search.sampling import Continue, Sampler


class Moves(NamedTuple):
    """What may follow a text: m moves, the likeliest first, and their probabilities, (m,)."""

    moves: Sequence[Text]
    priors: NDArray[np.float64]


class Branching(Protocol):
    """Says what may follow n texts."""

    def __call__(self, texts: Sequence[Continue], logits: Tensor, sampler: Sampler) -> list[Moves]:
        """The moves behind each text; `logits` of the next token are masked, shape (n, V)."""
        ...


@dataclass(frozen=True)
class ByToken(Checked):
    """A move is one token: the `width` likeliest ones that may follow.

    Attributes:
        width: Tokens that are looked at behind each beginning. Their probabilities are made to sum
            to 1, so a token outside them is never taken.
    """

    width: int = bounded(16, minimum=1)

    def __call__(self, texts: Sequence[Continue], logits: Tensor, sampler: Sampler) -> list[Moves]:
        """See `Branching`."""
        best, tokens = logits.topk(min(self.width, logits.shape[1]), dim=-1)
        priors = best.double().softmax(-1).cpu().numpy()
        moves = []
        for row, own in zip(tokens.tolist(), priors, strict=True):
            possible = own > 0
            kept = [(token,) for token, may in zip(row, possible, strict=True) if may]
            moves.append(Moves(kept, own[possible] / own[possible].sum()))
        return moves


@dataclass(frozen=True)
class BySegment(Checked):
    """A move is a segment that the policy samples: up to `tokens` ids, or up to a delimiter.

    `width` segments are sampled behind each beginning. Their priors are the shares of the samples,
    so equal ones count together, as in Hubert et al., "Learning and Planning in Complex Action
    Spaces" (Sampled MuZero, 2021, arXiv:2104.06303), where the policy itself proposes.

    Attributes:
        tokens: Longest segment.
        width: Segments that are sampled behind each beginning.
        until: Text that ends a segment, such as a new line; None for none.
    """

    tokens: int = bounded(8, minimum=1)
    width: int = bounded(4, minimum=1)
    until: str | None = None

    def __call__(self, texts: Sequence[Continue], logits: Tensor, sampler: Sampler) -> list[Moves]:
        """See `Branching`."""
        wide = [text for text in texts for _ in range(self.width)]
        rows = torch.arange(len(texts)).repeat_interleave(self.width)
        said = sampler.sample(wide, logits[rows], self.tokens, self.until)
        moves = []
        for place in range(len(texts)):
            own = said[place * self.width : (place + 1) * self.width]
            counts = {segment: own.count(segment) for segment in dict.fromkeys(own)}
            often = sorted(counts, key=lambda segment: -counts[segment])
            moves.append(Moves(often, np.array([counts[s] for s in often]) / self.width))
        return moves


LIKELIEST = ByToken()
"""The moves of a search that says nothing else."""

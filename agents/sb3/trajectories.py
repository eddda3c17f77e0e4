"""N observations in short form, when they are prefixes of S sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policies.observations import token_tensor


@dataclass(frozen=True)
class Trajectories:
    """N observations as the places before N choices in S sequences.

    An observation is the text before a choice. The observations of an episode are prefixes of one
    another, so one copy of the sequence holds them all. `len`, slices and tensors of indices count
    choices, as if these were the N observations themselves.

    Attributes:
        tokens: Sequences, shape (S, L), int64, right-padded.
        mask: True at the N chosen tokens, shape (S, L), bool, never at position 0. Choices have the
            order of its True entries.
        temperature: The one that a reference has scored the choices with; None without a reference.
    """

    tokens: Tensor
    mask: Tensor
    temperature: float | None = None

    @classmethod
    def from_observations(
        cls, observations: Tensor, pad_token: int, actions: Tensor | None = None
    ) -> Trajectories:
        """One sequence for each observation (N, L), with its one choice behind it."""
        ids = token_tensor(observations, pad_token)
        # One more place: the choice after a full observation needs it too.
        tokens = torch.nn.functional.pad(ids, (0, 1), value=pad_token)
        lengths = (ids != pad_token).sum(1)
        mask = torch.arange(tokens.shape[1], device=tokens.device) == lengths[:, None]
        # Without actions any token will do: nothing reads behind the end of the observation.
        chosen = torch.zeros_like(lengths) if actions is None else actions.long()
        return cls(tokens.masked_scatter(mask, chosen), mask)

    @property
    def lengths(self) -> Tensor:
        """How many tokens of each sequence precede its last choice, shape (S,), int64."""
        places = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (self.mask * places).amax(1).clamp(min=1)

    def __len__(self) -> int:
        """Number of choices N."""
        return int(self.mask.sum())

    def __getitem__(self, which: Any) -> Trajectories:
        """The same sequences with only these choices; `which` indexes N choices."""
        kept = torch.zeros_like(self.mask[self.mask])
        kept[which] = True
        return replace(self, mask=self.mask.masked_scatter(self.mask, kept))

"""Classes for sb3-contrib's `MaskablePPO`: action masks in the policy and in the buffer."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import (
    MaskableRolloutBuffer,
    MaskableRolloutBufferSamples,
)
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from agents.sb3.buffer import TrajectoryBuffer
from agents.sb3.policy import TokenActorCritic


class SB3MaskableTokenPolicy(TokenActorCritic, MaskableActorCriticPolicy):
    """For sb3-contrib's MaskablePPO; see `TokenActorCritic` for its arguments."""


class MaskableTrajectoryBuffer(TrajectoryBuffer, MaskableRolloutBuffer):  # type: ignore[misc]
    """`TrajectoryBuffer` with the action mask of every step.

    Masks are stored as sb3-contrib does it, in float32: 4 V bytes for each token.
    """

    def _samples(self, sequences: NDArray[np.intp]) -> Any:
        samples = super()._samples(sequences)
        steps = self.steps[sequences]
        masks = self.action_masks.reshape(-1, self.mask_dims)[steps[steps >= 0]]
        return MaskableRolloutBufferSamples(*samples, self.to_torch(masks))

    def _masks_at(self, steps: NDArray[np.intp]) -> torch.Tensor:
        return torch.from_numpy(self.action_masks.reshape(-1, self.mask_dims)[steps] > 0)

"""PPO that keeps reading: the pretraining term of InstructGPT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.ppo import PPO
from agents.optimisation import pretraining_term
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from agents.algorithm import Metrics, StepTaker
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class PPOPtx(PPO):
    """PPO whose every optimiser step also descends the next-token loss of the pretraining text.

        loss = PPO's - ptx_coef * mean over tokens of log pi(x_t | x_<t),  x from the text

    Ouyang et al., "Training language models to follow instructions with human feedback" (2022),
    equation 2, "PPO-ptx". Use it when training on the reward makes the model worse at what it
    learned in pretraining. With `ptx_coef` of 0 it is `PPO`. Both terms are means over tokens here,
    so `ptx_coef` compares them directly; the paper's 27.8 weighs other means. With a
    `SeparateValue` policy only the actor reads the text.

    Attributes:
        stream: Ids of the pretraining text, shape (N,), in memory or mapped from a file.
        ptx_coef: Weight of the pretraining text's loss; larger keeps more of the pretraining.
        ptx_window: Length of a window of pretraining text, in tokens.
        ptx_batch: Windows of pretraining text read in each optimiser step.
    """

    stream: NDArray[np.integer] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64),
        repr=False,
        compare=False,
        metadata={"from_code": True},
    )
    ptx_coef: float = bounded(1.0, minimum=0)
    ptx_window: int = bounded(64, minimum=1)
    ptx_batch: int = bounded(8, minimum=1)

    def __post_init__(self) -> None:
        """Refuse a stream that gives no window."""
        super().__post_init__()
        if len(self.stream) <= self.ptx_window:
            raise ValueError(
                f"the stream has {len(self.stream)} tokens; a window of ptx_window="
                f"{self.ptx_window} needs {self.ptx_window + 1}"
            )

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """One optimiser step on a minibatch and on windows of the text."""
        outputs = trainer.outputs(batch)
        loss, reported = self.loss(batch, outputs)
        text_loss = pretraining_term.text_loss(
            trainer, self.stream, windows=self.ptx_batch, length=self.ptx_window
        )
        norm = trainer.descend(loss + self.ptx_coef * text_loss)
        return outputs, reported | {"loss": loss, "ptx_loss": text_loss, "grad_norm": norm}

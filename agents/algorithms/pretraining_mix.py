"""PPO that keeps reading: the pretraining term of InstructGPT."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithm import Metrics
from agents.algorithms.ppo import PPO
from agents.optimisation.micro_batches import in_parts
from agents.rollout import Rollout
from agents.supervised.pretraining import next_token_loss, random_windows
from policies import Scores

if TYPE_CHECKING:
    from agents.trainer import Trainer


@dataclass(frozen=True)
class PPOPtx(PPO):
    """PPO whose every optimiser step also descends the next-token loss of the pretraining text.

        loss = PPO's - ptx_coef * mean over tokens of log pi(x_t | x_<t),  x from the text

    Ouyang et al., "Training language models to follow instructions with human feedback" (2022),
    equation 2, "PPO-ptx": what alignment costs elsewhere is paid back. Both terms are means over
    tokens here, so that `ptx_coef` compares them; the paper's 27.8 weighs other means. With a
    `SeparateValue` policy only the actor reads.

    Attributes:
        stream: Ids of the pretraining text, shape (N,), in memory or mapped from a file.
        ptx_coef: Weight of the text.
        ptx_window: Tokens read in a row.
        ptx_batch: Windows of an optimiser step.
    """

    stream: NDArray[np.integer] = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False, compare=False
    )
    ptx_coef: float = 1.0
    ptx_window: int = 64
    ptx_batch: int = 8

    def __post_init__(self) -> None:
        """Refuse a stream that gives no window."""
        if len(self.stream) <= self.ptx_window:
            raise ValueError(
                f"the stream has {len(self.stream)} tokens; a window of ptx_window="
                f"{self.ptx_window} needs {self.ptx_window + 1}"
            )

    def step(self, trainer: "Trainer", batch: Rollout) -> tuple[Scores, Metrics]:
        """One optimiser step on a minibatch and on windows of the text."""
        scores = trainer.score(batch)
        loss, reported = self.loss(batch, scores)
        windows = random_windows(self.stream, trainer.generator, self.ptx_batch, self.ptx_window)
        together = (trainer.micro_batch_tokens or windows.size) // self.ptx_window
        parts = np.split(windows, range(max(together, 1), self.ptx_batch, max(together, 1)))
        sums = in_parts(lambda part: len(part) * self._text_loss(trainer, part), parts)
        text_loss = torch.stack(sums).sum() / self.ptx_batch
        norm = trainer.descend(loss + self.ptx_coef * text_loss)
        return scores, reported | {"loss": loss, "ptx_loss": text_loss, "grad_norm": norm}

    def _text_loss(self, trainer: "Trainer", windows: NDArray[np.int64]) -> Tensor:
        with trainer.precision.autocast():
            return next_token_loss(trainer.policy, windows)

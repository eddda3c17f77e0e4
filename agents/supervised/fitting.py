"""Optimiser steps on a supervised loss, the same for pretraining, fine-tuning and reward models.

The recipe of GPT-2 and GPT-3: AdamW (Loshchilov and Hutter, 2019) with weight decay on matrices
only, a linear warm-up, then half a cosine to a tenth of the learning rate, and clipped gradients.
Dropout acts within a step and nowhere else.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from agents.distribution import Ranks
from agents.distribution.gathering import divided, full
from agents.distribution.optimizers import restore, written_state
from agents.distribution.shares import is_shared
from agents.optimisation.precision import Precision
from agents.optimisation.trained import check_trained, trained_parameters
from agents.runs.state_files import read_state, write_state
from agents.supervised.optimisers import MakesOptimiser, adamw
from agents.supervised.schedules import Cosine, Schedule
from policies.dropout import Dropout, dropping
from textenv.errors import CheckpointError


@dataclass(frozen=True)
class FitStep:
    """What one optimiser step did.

    Attributes:
        number: Number of the step, from 1.
        loss: Mean of the step's losses, before the step.
        learning_rate: Learning rate of this step.
        grad_norm: Norm of the gradient before it was clipped.
    """

    number: int
    loss: float
    learning_rate: float
    grad_norm: float


class FitOptions(TypedDict, total=False):
    """What functions that train pass on to `Fitting`, where each is described with its default."""

    warmup: float
    max_grad_norm: float
    precision: torch.dtype
    optimizer: MakesOptimiser
    schedule: Schedule | None
    dropout: Dropout | None


class Fitting:
    """A model, its optimiser and its schedule.

    Args:
        model: The model to train; parameters that take no gradient stay as they are.
        steps: Number of optimiser steps in all, for the schedule.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, applied to matrices and embeddings only.
        warmup: Steps in which the learning rate rises; below 1 a share of all.
        max_grad_norm: A gradient with a larger norm than this is scaled down to it.
        precision: dtype of the matrix products (autocast); `torch.bfloat16` is at least twice as
            fast on processors and GPUs made for it, `torch.float16` uses a loss scale.
        optimizer: Makes the optimiser: `adamw`, `muon` or a function like these.
        schedule: Of `agents.supervised.schedules`, or another function like these; if None,
            `Cosine(warmup)`.
        dropout: What the policies in the model drop within a step.
        seed: Seed of what is dropped; a step's depends on the seed and its number alone.

    Attributes:
        done: Steps so far.

    Raises:
        FrozenPolicyError: All parameters of the model are frozen.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float = 0.1,
        warmup: float = 0.05,
        max_grad_norm: float = 1.0,
        precision: torch.dtype = torch.float32,
        optimizer: MakesOptimiser = adamw,
        schedule: Schedule | None = None,
        dropout: Dropout | None = None,
        seed: int = 0,
    ):
        self.model, self.steps, self.done = model, steps, 0
        self.learning_rate, self.schedule = learning_rate, schedule or Cosine(warmup)
        self.dropout, self.seed = dropout or Dropout(), seed
        self.max_grad_norm = max_grad_norm
        self.optimizer = optimizer(model, learning_rate, weight_decay)
        self._trained = trained_parameters(model)
        self.ranks, self.readers = Ranks.found(), Ranks.readers()
        self.ranks.check_same(seed=seed, steps=steps)
        self.ranks.copy_from_first(model)
        self.precision = Precision(precision, self._trained[0].device.type)

    def step(self, losses: Iterable[Tensor]) -> FitStep:
        """One optimiser step down the mean of `losses`.

        Args:
            losses: Scalars. Each is differentiated before the next is taken, so an iterator that
                computes them one by one accumulates gradients in the memory of one. In a process
                group each is the loss of the whole batch, differentiable in the rows of this rank
                alone (`agents.distribution.shares.in_shares`).

        Raises:
            ValueError: There are no losses.
            FrozenPolicyError: A loss depends on no parameter that is trained.
            UnmetNeedError: Several processes compute the same gradient instead of a part each.
            DivergedError: A loss, or the norm of the gradient, is not a finite number; no step was
                taken.
        """
        # Counted from 1: the first step of a warm-up would otherwise have a learning rate of 0.
        rate = self.learning_rate * self.schedule(self.done + 1, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        values: list[float] = []
        to_check, shared = self.done == 0 and self.readers.size > 1, False
        with self.computing():
            for loss in losses:
                check_trained(loss)
                shared = shared or (to_check and is_shared(loss))
                self.precision.backward(loss)
                values.append(loss.item())
        if not values:
            raise ValueError("there is no loss to descend")
        if to_check:
            self.readers.check_divided(self._trained, shared)
        self.readers.sum_gradients(self._trained)
        # The number of losses is known only at the end; one loss needs no division.
        for parameter in self._trained:
            if parameter.grad is not None and len(values) > 1:
                parameter.grad /= len(values)
        norm = self.precision.step(self.optimizer, self._trained, self.max_grad_norm)
        self.done += 1
        return FitStep(self.done, sum(values) / len(values), rate, float(norm))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Where the losses of the next step are computed: its number types and its dropout.

        `step` enters it itself; enter it for what is computed before `step` is called.
        """
        apart = [self.readers.rank] if self.readers.size > 1 else []
        with (
            self.precision.autocast(),
            dropping(self.model, self.dropout, [self.seed, self.done, *apart]),
        ):
            yield

    def save(self, folder: str | Path) -> None:
        """Write the optimiser's state and the number of steps into `folder`, not the model.

        Of several processes all call it; the first one writes.
        """
        state = {
            "done": self.done,
            "optimizer": written_state(Path(folder), self.model, self.optimizer),
            "precision": self.precision.state_dict(),
        }
        self.ranks.by_first(lambda: write_state(folder, "fitting", state))

    def save_weights(self, folder: str | Path) -> None:
        """Write the parameters that are trained; a model made as before has all others."""
        write_trained(self.model, folder)

    def load_weights(self, folder: str | Path) -> None:
        """Put what `save_weights` wrote into the model.

        Raises:
            CheckpointError: It cannot be read, or belongs to another model.
        """
        read_trained(self.model, folder)

    def load(self, folder: str | Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            CheckpointError: The state cannot be read, or belongs to another model.
        """
        state = read_state(folder, "fitting")
        restore(Path(folder), self.model, self.optimizer, state["optimizer"])
        self.precision.load_state_dict(state["precision"])
        self.done = state["done"]


def write_trained(model: nn.Module, folder: str | Path) -> None:
    """Write the parameters that are trained; of several processes all call it, the first writes."""
    trained = {n: full(p) for n, p in model.named_parameters() if p.requires_grad}
    Ranks.found().by_first(lambda: write_state(folder, "weights", {"weights": trained}))


@torch.no_grad()
def read_trained(model: nn.Module, folder: str | Path) -> None:
    """Put what `write_trained` wrote into a model that was made as the other one was.

    Raises:
        CheckpointError: It cannot be read, or belongs to another model.
    """
    saved = read_state(folder, "weights")["weights"]
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    shapes = {name: tuple(weight.shape) for name, weight in trained.items()}
    if shapes != {name: tuple(weight.shape) for name, weight in saved.items()}:
        raise CheckpointError(f"the weights in {folder} are those of another model")
    for name, weight in trained.items():
        weight.copy_(divided(saved[name], weight))

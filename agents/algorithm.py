"""What makes one algorithm differ from another: an advantage and a loss.

Algorithms are declared without torch, so that their fields can be read at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from agents.optimisation.precision import Precision
    from agents.rollout import Rollout
    from policies import Policy, PolicyOutputs

Metrics: TypeAlias = "dict[str, Tensor]"


class Needs(NamedTuple):
    """What an algorithm learns from.

    Attributes:
        groups: Several answers to each prompt: an environment with `group_size` of 2 or more.
        whole_episodes: Rollouts of whole episodes: a learner with `n_episodes`.
        reference: A frozen policy to compare with.
        values: A value head, which it trains.
    """

    groups: bool = False
    whole_episodes: bool = False
    reference: bool = False
    values: bool = False


class StepTaker(Protocol):
    """What an algorithm may ask of the trainer during a step; see `Trainer`."""

    policy: Policy
    micro_batch_tokens: int | None
    precision: Precision
    generator: np.random.Generator

    @property
    def trained(self) -> Sequence[Tensor]:
        """The parameters that take a gradient."""
        ...

    def outputs(self, batch: Rollout, policy: Policy | None = None) -> PolicyOutputs:
        """What the policy says of the choices of a batch, with gradient."""
        ...

    def fixed_outputs(self, batch: Rollout, policy: Policy | None = None) -> PolicyOutputs:
        """The same without gradient."""
        ...

    def with_reference(self, rollout: Rollout) -> Rollout:
        """The rollout with the reference's log-probabilities."""
        ...

    def descend(self, loss: Tensor) -> Tensor:
        """One optimiser step; returns the gradient's norm."""
        ...


@dataclass(frozen=True)
class Algorithm(ABC):
    """Base class; a subclass states `advantages` and `loss`.

    Attributes:
        n_epochs: Passes over each rollout.
        minibatch_tokens: About this many chosen tokens make one optimiser step; None takes the
            whole rollout at once. Sequences are never split.
        target_kl: Stop the epochs of a rollout once the policy has moved this far from the one that
            sampled it (nats per token, estimator k3); None never stops.
        replay: This many rollouts, the last one and those before it, are learned from at once; 0
            learns from the last one alone.
    """

    needs: ClassVar[Needs] = Needs()

    n_epochs: int = 1
    minibatch_tokens: int | None = None
    target_kl: float | None = None
    replay: int = 0

    @abstractmethod
    def advantages(self, rollout: Rollout) -> Tensor:
        """How much better each choice was than expected: (S, L), or (S,) for whole episodes."""

    @abstractmethod
    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor | tuple[Tensor, Metrics]:
        """The scalar to minimise over a minibatch, and numbers to report if there are any.

        Args:
            batch: Sequences with `advantages` and `value_targets` set.
            outputs: What the present policy says of their choices, with gradients.
        """

    def value_targets(self, rollout: Rollout, advantages: Tensor) -> Tensor:
        """What the value head is fitted to: the value that was expected plus the advantage."""
        spread = advantages if advantages.dim() == 2 else advantages[:, None]
        return (rollout.values + spread).where(rollout.mask, 0.0)

    def gather(self, collect: Callable[[], Rollout]) -> Rollout:
        """A rollout to learn from; an algorithm that picks its data may call `collect` again."""
        return collect()

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """One optimiser step on a minibatch.

        Returns:
            What the policy said of the minibatch before the step, and numbers to report.
        """
        outputs = trainer.outputs(batch)
        loss = self.loss(batch, outputs)
        loss, reported = loss if isinstance(loss, tuple) else (loss, {})
        return outputs, reported | {"loss": loss, "grad_norm": trainer.descend(loss)}

"""What makes one algorithm differ from another: an advantage and a loss.

This file does not import torch, so the command line can show an algorithm's fields at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeAlias

from agents.optimisation.bounds import bounded, check_fields

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from agents.distribution import Ranks
    from agents.optimisation.precision import Precision
    from agents.optimisation.settings import Optimisation
    from agents.rollout import Rollout
    from policies import Policy, PolicyOutputs
    from textenv.starts import Start

Metrics: TypeAlias = "dict[str, Tensor]"


class Needs(NamedTuple):
    """What an algorithm learns from.

    Attributes:
        groups: It compares answers to one prompt; the environment's `group_size` is 2 or more.
        whole_episodes: It learns from whole episodes; the learner has `n_episodes`.
        reference: It compares the policy with a frozen one.
        values: It trains a value head.
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
    ranks: Ranks
    readers: Ranks
    reference: Policy | None
    settings: Optimisation

    @property
    def trained(self) -> Sequence[Tensor]:
        """The parameters that take a gradient."""
        ...

    def outputs(self, batch: Rollout, policy: Policy | None = None) -> PolicyOutputs:
        """The policy's outputs for the choices of a batch, with gradient.

        Of several processes each reads its share, so its gradients are those of its share alone:
        `descend` sums them.
        """
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
        n_epochs: Passes over each rollout; more passes learn more from the same answers, and move
            further from the policy that gave them.
        minibatch_tokens: About this many chosen tokens make one optimiser step; None takes the
            whole rollout at once. Sequences are never split.
        target_kl: Stop the epochs of a rollout once the policy has moved this far from the one that
            sampled it, in nats per token; None never stops.
        replay: How many of the latest rollouts to learn from at once; 0 takes the newest one alone.

    Raises:
        OptionError: A field has a number out of its bounds.
    """

    needs: ClassVar[Needs] = Needs()

    n_epochs: int = bounded(1, minimum=1)
    minibatch_tokens: int | None = bounded(None, minimum=1)
    target_kl: float | None = bounded(None, minimum=0)
    replay: int = bounded(0, minimum=0)

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds."""
        check_fields(self)

    @abstractmethod
    def advantages(self, rollout: Rollout) -> Tensor:
        """How much better each choice was than expected: (S, L), or (S,) for whole episodes."""

    @abstractmethod
    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor | tuple[Tensor, Metrics]:
        """The scalar to minimise over a minibatch, and numbers to report if there are any.

        Args:
            batch: Sequences with `advantages` and `value_targets` set.
            outputs: The present policy's outputs for their choices, with gradients.
        """

    def mix(self, rollout: Rollout) -> Tensor:
        """The advantages that the loss is given, of a rollout whose `advantages` are its own.

        They are these; `PolicyGradient` may mix them with others.
        """
        assert rollout.advantages is not None
        return rollout.advantages

    def value_targets(self, rollout: Rollout, advantages: Tensor) -> Tensor:
        """What the value head is fitted to: the value at rollout plus the advantage."""
        spread = advantages if advantages.dim() == 2 else advantages[:, None]
        return (rollout.values + spread).where(self.value_mask(rollout), 0.0)

    def value_mask(self, rollout: Rollout) -> Tensor:
        """Where the value head is fitted, shape (S, L), bool: at every chosen token."""
        return rollout.mask

    def gather(self, collect: Callable[[], Rollout]) -> Rollout:
        """A rollout to learn from; an algorithm that selects answers may collect more than once."""
        return collect()

    def look_ahead(
        self, rollout: Rollout, collect_from: Callable[[Sequence[Start], int], Rollout]
    ) -> Rollout:
        """The rollout with what continuations of its texts tell, for algorithms that play some.

        Args:
            rollout: A rollout of the learner's, KL penalty included.
            collect_from: Plays on from starts, such as `rollout.start(sequence, position)`, as
                often as said; see `Collector.collect_from`. The tokens count in the training's.
        """
        return rollout

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """One optimiser step on a minibatch.

        Returns:
            The policy's outputs for the minibatch before the step, and numbers to report.
        """
        outputs = trainer.outputs(batch)
        loss = self.loss(batch, outputs)
        loss, reported = loss if isinstance(loss, tuple) else (loss, {})
        return outputs, reported | {"loss": loss, "grad_norm": trainer.descend(loss)}

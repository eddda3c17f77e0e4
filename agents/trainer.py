"""Optimiser steps on rollouts, wherever these come from: an environment, a log, preferences.

In a process group each rank reads its share of a minibatch. All else, from the advantages to the
loss, is computed by every rank of the whole batch.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from agents import losses, returns
from agents.algorithm import Algorithm
from agents.distribution import Ranks
from agents.distribution.gathering import give_up, is_divided, plain_copy
from agents.optimisation.micro_batches import outputs_of
from agents.optimisation.minibatches import split_evenly
from agents.optimisation.precision import Precision
from agents.optimisation.settings import Optimisation, OptimisationFields
from agents.optimisation.trained import check_trained, optimizer_of, trained_parameters
from agents.rollout import Rollout
from policies import Policy, PolicyOutputs
from textenv.errors import AnnotationError, UnmetNeedError, VocabularyMismatchError
from textenv.records import short

Annotate: TypeAlias = Callable[[Rollout], Rollout | Mapping[str, Tensor]]
"""From a rollout to arrays for its `extra`, shape (S,) or (S, L), or to another rollout."""


def no_reference(algorithm: Algorithm) -> UnmetNeedError:
    """The error to raise where an algorithm has no reference to compare with."""
    return UnmetNeedError(
        f"{type(algorithm).__name__} compares the policy with a reference and there is none: pass "
        "reference=policy.frozen_copy()"
    )


class Trainer:
    """Trains a policy on rollouts that it is given; `Learner` also collects them.

    Args:
        policy: The policy that learns.
        algorithm: PPO, DPO or any other `Algorithm`.
        reference: A frozen policy, for a KL penalty and for losses that compare with it.
        annotate: Called with each new rollout before its advantages; what it returns goes to
            `rollout.extra`, where an algorithm finds it: scores of a teacher or of steps.
        optimizer: Makes an optimiser from parameters and a learning rate.
        **settings: The fields of `Optimisation`, such as `learning_rate=3e-4`, `precision` and
            `seed`.

    Attributes:
        settings: The `Optimisation` in use.
        ranks: The processes that share the training: those of torch's process group.
        readers: Those of them that divide rows and passes; this one alone if all read the same.
        trained: The parameters that take a gradient.

    Raises:
        FrozenPolicyError: There are none.
        UnmetNeedError: The reference is the policy itself, processes were told different things, or
            other code has divided the policy's parameters among them.
        VocabularyMismatchError: The reference has another vocabulary.
        TypeError: `optimizer` is one already, or makes one that holds other parameters.
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        *,
        reference: Policy | None = None,
        annotate: Annotate | None = None,
        optimizer: Callable[..., Optimizer] = Adam,
        **settings: Unpack[OptimisationFields],
    ):
        if reference is policy:
            raise UnmetNeedError(
                "the reference is the policy itself, so it would move with it and the KL would "
                "always be 0: pass reference=policy.frozen_copy()"
            )
        if reference is not None and reference.vocab_size != policy.vocab_size:
            raise VocabularyMismatchError(
                f"the reference has {reference.vocab_size} tokens and the policy "
                f"{policy.vocab_size}: a reference is a frozen copy of what the policy began as"
            )
        self.policy, self.algorithm, self.reference = policy, algorithm, reference
        self.annotate = annotate
        self.settings = Optimisation(**settings)  # type: ignore[arg-type]  # a dtype becomes a name
        self.ranks, self.readers = Ranks.found(), Ranks.readers()
        self.ranks.check_same(algorithm=type(algorithm).__name__, seed=self.settings.seed)
        for network in (policy, reference):
            if network is not None:
                self.ranks.copy_from_first(network)
        self.micro_batch_tokens = self.settings.micro_batch_tokens
        self.precision = Precision(getattr(torch, self.settings.precision), policy.device.type)
        self.trained: Sequence[Tensor] = trained_parameters(policy)
        if is_divided(self.trained) and plain_copy(policy) is policy:
            raise UnmetNeedError(
                "the policy's parameters were divided among processes by other code, such as a "
                "tensor-parallel plan, and rollouts could not gather them: load it whole, and call "
                "agents.distribution.sharded.shard(policy)"
            )
        self.optimizer = optimizer_of(optimizer, self.trained, self.settings.rate(0.0))
        self.generator = np.random.default_rng([self.settings.seed, 1])
        self.replay: deque[Rollout] = deque(maxlen=algorithm.replay)

    def learn_from(
        self, rollout: Rollout, fraction_done: float = 0.0
    ) -> tuple[Rollout, dict[str, float]]:
        """The algorithm's epochs over a rollout.

        Args:
            rollout: What to learn from; it gets the reference's log-probabilities if it lacks them.
            fraction_done: Share of the training done, for the learning rate and, as
                `rollout.progress`, for schedules.

        Returns:
            The rollout with advantages and value targets, and the mean of each metric.

        Raises:
            UnmetNeedError: The algorithm compares answers and no two belong to one group, or it
                needs a reference and there is none.
            FrozenPolicyError: The choices depend on no parameter that is trained.
            AnnotationError: See `annotated`.
        """
        rate = self.settings.rate(fraction_done)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # of optimisers that are compiled
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        rollout = self.with_reference(self.with_proximal(rollout))
        rollout = self.annotated(replace(rollout, progress=fraction_done))
        self._check_rollout(rollout)
        encoded_before = self.policy.encoded_tokens
        rollout = replace(self.with_replay(rollout), progress=fraction_done)
        advantages = self.algorithm.advantages(rollout)
        # Values are fitted to what the algorithm says, whatever else multiplies the gradient.
        rollout = replace(
            rollout,
            advantages=advantages,
            value_targets=self.algorithm.value_targets(rollout, advantages),
        )
        rollout = replace(rollout, advantages=self.algorithm.mix(rollout))
        assert rollout.value_targets is not None
        record: dict[str, list[float]] = {}
        for _ in range(self.algorithm.n_epochs):
            moved = [self._step(batch, record) for batch in self._minibatches(rollout)]
            limit = self.algorithm.target_kl
            if limit is not None and self.ranks.of_first(np.mean(moved) > limit):
                break
        metrics = {name: float(np.mean(values)) for name, values in record.items()}
        encoded = self.readers.total(self.policy.encoded_tokens - encoded_before)
        metrics["update_encoded_tokens"] = float(encoded)
        if self.algorithm.needs.values:
            metrics["explained_variance"] = losses.explained_variance(
                rollout.values, rollout.value_targets, self.algorithm.value_mask(rollout)
            ).item()
        return rollout, self._weighing(rollout) | metrics | {"learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        """What the next update depends on beside the weights, as arrays and plain types."""
        return self.runtime_state() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.load_runtime_state(state)

    def runtime_state(self) -> dict[str, Any]:
        """The same without the optimiser, which checkpoints write by itself: it may be divided."""
        return {
            "minibatches": self.generator.bit_generator.state,
            "precision": self.precision.state_dict(),
            "replay": [rollout.state_dict() for rollout in self.replay],
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `runtime_state` returned."""
        self.generator.bit_generator.state = state["minibatches"]
        self.precision.load_state_dict(state["precision"])
        self.replay.clear()
        self.replay.extend(map(Rollout.from_state_dict, state["replay"]))

    def outputs(self, batch: Rollout, policy: Policy | None = None) -> PolicyOutputs:
        """What the policy (or another one) says of the choices of a batch."""

        def outputs(part: Rollout) -> PolicyOutputs:
            with self.precision.autocast():
                return (policy or self.policy).outputs(
                    part.tokens,
                    part.mask,
                    temperature=self.settings.temperature,
                    action_masks=part.action_masks,
                )

        found = outputs_of(outputs, batch, self.micro_batch_tokens, self.readers)
        if policy is None and torch.is_grad_enabled():
            check_trained(found.logprobs)
        return found

    @torch.no_grad()  # no inference tensors: a loss may use these numbers
    def fixed_outputs(self, batch: Rollout, policy: Policy | None = None) -> PolicyOutputs:
        """The same as constants, without gradient."""
        found = self.outputs(batch, policy)
        give_up(policy or self.policy)
        return found

    def descend(self, loss: Tensor) -> Tensor:
        """One optimiser step down the gradient of `loss`; returns the gradient's norm.

        Raises:
            DivergedError: The loss or the norm is not a finite number; no step was taken.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(loss)
        self.readers.sum_gradients(self.trained)
        return self.precision.step(self.optimizer, self.trained, self.settings.max_grad_norm)

    def with_proximal(self, rollout: Rollout) -> Rollout:
        """The rollout with the policy's present log-probabilities and values, if wanted.

        With `importance_cap`, `sampled_logprobs` become what `logprobs` were, and tokens weigh what
        `losses.truncated_ratios` says. Without it, or if it was done, it is the rollout itself.
        """
        cap = self.settings.importance_cap
        if cap is None or rollout.sampled_logprobs is not None:
            return rollout
        now, sampled = self.fixed_outputs(rollout), rollout.logprobs
        return replace(
            rollout,
            logprobs=now.logprobs,
            values=now.values,
            sampled_logprobs=sampled,
            importance_weights=losses.truncated_ratios(now.logprobs, sampled, rollout.mask, cap),
        )

    def with_reference(self, rollout: Rollout) -> Rollout:
        """The rollout with `ref_logprobs`, computed by one pass of the reference if missing."""
        if self.reference is None or rollout.ref_logprobs is not None:
            return rollout
        return replace(rollout, ref_logprobs=self.fixed_outputs(rollout, self.reference).logprobs)

    def annotated(self, rollout: Rollout) -> Rollout:
        """The rollout with what the `annotate` hook adds to it.

        Raises:
            AnnotationError: The hook returned no rollout, and no arrays that fit this one.
        """
        if self.annotate is None:
            return rollout
        added = self.annotate(rollout)
        if isinstance(added, Rollout):
            return added
        if not isinstance(added, Mapping):
            raise AnnotationError(
                f"annotate returned {short(added)}; it must return a dict of tensors, or a Rollout"
            )
        return rollout.with_extra(added)

    def with_replay(self, rollout: Rollout) -> Rollout:
        """The rollout and those before it, if the algorithm learns from them again.

        The policy's present outputs go to `values` and `present_logprobs`, like those of a target
        network that is renewed at every update.
        """
        if not self.algorithm.replay:
            return rollout
        self.replay.append(rollout)
        together = Rollout.cat(list(self.replay))
        now = self.fixed_outputs(together)
        return replace(together, values=now.values, present_logprobs=now.logprobs)

    def _weighing(self, rollout: Rollout) -> dict[str, float]:
        """What the weights of a rollout's tokens are, if it has any."""
        weights = rollout.importance_weights
        if weights is None:
            return {}
        cap = self.settings.importance_cap
        capped = weights.ge(math.inf if cap is None else cap).to(weights.dtype)
        return {
            "importance_weight": losses.masked_mean(weights, rollout.mask).item(),
            "capped_fraction": losses.masked_mean(capped, rollout.mask).item(),
        }

    def _check_rollout(self, rollout: Rollout) -> None:
        needs = self.algorithm.needs
        if needs.reference and rollout.ref_logprobs is None:
            raise no_reference(self.algorithm)
        if needs.groups and len(rollout) and returns.group_sizes(rollout.groups).max() < 2:
            raise UnmetNeedError(
                f"{type(self.algorithm).__name__} compares answers to the same prompt, and no two "
                f"of the {len(rollout)} answers have the same group number: give answers to one "
                "prompt the same number in `groups`"
            )

    def _step(self, batch: Rollout, record: dict[str, list[float]]) -> float:
        """One step of the algorithm; returns how far the policy had moved since it sampled (k3)."""
        outputs, reported = self.algorithm.step(self, batch)
        with torch.no_grad():
            # Under samples from the old policy, so the old one comes first.
            moved = losses.masked_mean(
                losses.kl_k3(batch.logprobs, outputs.logprobs, batch.mask), batch.mask
            )
            entropy = losses.masked_mean(outputs.entropies, batch.mask)
        for name, value in (reported | {"entropy": entropy, "approx_kl": moved}).items():
            record.setdefault(name, []).append(torch.as_tensor(value).detach().item())
        return float(moved)

    def _minibatches(self, rollout: Rollout) -> Iterable[Rollout]:
        """Whole groups in random order, as many as make up `minibatch_tokens`."""
        size = self.algorithm.minibatch_tokens
        if size is None:
            yield rollout
            return
        _, group = torch.unique(rollout.groups, return_inverse=True)
        counts = torch.zeros(int(group.max()) + 1, dtype=torch.int64)
        counts.index_add_(0, group.cpu(), rollout.mask.sum(1).cpu())
        order = self.generator.permutation(len(counts))
        for chosen in split_evenly(counts.numpy(), order, size):
            of_chosen = torch.isin(group, torch.from_numpy(chosen).to(group.device))
            yield rollout.select(of_chosen.nonzero().squeeze(1))

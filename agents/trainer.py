"""Optimiser steps on rollouts, wherever these come from: an environment, a log, preferences."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from agents import losses
from agents.algorithm import Algorithm
from agents.optimisation.micro_batches import parts_of, score_in_parts
from agents.optimisation.minibatches import split_evenly
from agents.optimisation.precision import Precision
from agents.rollout import Rollout
from policies import Policy, Scores


class Trainer:
    """Trains a policy on rollouts that it is given; `Learner` also collects them.

    Args:
        policy: What learns.
        algorithm: PPO, DPO or any other `Algorithm`.
        reference: A frozen policy, for a KL penalty and for losses that compare with it.
        learning_rate: A number, or a function of the share of the training done (0 to 1).
        temperature: That of the sampling, and so of the log-probabilities.
        max_grad_norm: Gradients are scaled down to this norm.
        micro_batch_tokens: At most so many tokens, prompts included, go through the network at
            once, however large the minibatch; None takes the minibatch whole. Gradients stay those
            of the whole minibatch; memory becomes that of a part, for one more forward pass.
        precision: dtype of the update's matrix products (autocast). Products in `torch.bfloat16`
            are at least twice as fast on processors and GPUs made for it; `torch.float16` brings
            its loss scale. The rollout keeps the precision of the weights. So log-probabilities of
            the update differ from those of the rollout by rounding: little in small networks, 0.04
            nats in one of 135M parameters (docs/benchmarks.md). That is why float32 is the default.
        optimizer: Makes an optimiser from parameters and a learning rate.
        seed: Of the minibatches.
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        *,
        reference: Policy | None = None,
        learning_rate: float | Callable[[float], float] = 3e-4,
        temperature: float = 1.0,
        max_grad_norm: float = 1.0,
        micro_batch_tokens: int | None = None,
        precision: torch.dtype = torch.float32,
        optimizer: Callable[..., Optimizer] = Adam,
        seed: int = 0,
    ):
        self.policy, self.algorithm, self.reference = policy, algorithm, reference
        self.temperature, self.max_grad_norm = temperature, max_grad_norm
        self.micro_batch_tokens = micro_batch_tokens
        self.precision = Precision(precision, policy.device.type)
        self._rate = learning_rate if callable(learning_rate) else _constant(learning_rate)
        self.trained = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.trained, lr=self._rate(0.0))
        self.generator = np.random.default_rng([seed, 1])
        self.replay: deque[Rollout] = deque(maxlen=algorithm.replay)

    def learn_from(
        self, rollout: Rollout, progress: float = 0.0
    ) -> tuple[Rollout, dict[str, float]]:
        """The algorithm's epochs over a rollout.

        Args:
            rollout: What to learn from; it gets the reference's log-probabilities if it has none.
            progress: Share of the training done, for the learning rate.

        Returns:
            The rollout with advantages and value targets, and the mean of each metric.
        """
        rate = self._rate(progress)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # of optimisers that are compiled
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        rollout = self.with_replay(self.with_reference(rollout))
        advantages = self.algorithm.advantages(rollout)
        rollout = replace(
            rollout,
            advantages=advantages,
            value_targets=self.algorithm.value_targets(rollout, advantages),
        )
        assert rollout.value_targets is not None
        record: dict[str, list[float]] = {}
        for _ in range(self.algorithm.n_epochs):
            moved = [self._step(batch, record) for batch in self._minibatches(rollout)]
            limit = self.algorithm.target_kl
            if limit is not None and np.mean(moved) > limit:
                break
        metrics = {name: float(np.mean(values)) for name, values in record.items()}
        metrics["explained_variance"] = losses.explained_variance(
            rollout.values, rollout.value_targets, rollout.mask
        ).item()
        return rollout, metrics | {"learning_rate": rate}

    def score(self, batch: Rollout, policy: Policy | None = None) -> Scores:
        """What the policy (or another one) says of the choices of a batch."""

        def score(part: Rollout) -> Scores:
            with self.precision.autocast():
                return (policy or self.policy).score(
                    part.tokens,
                    part.mask,
                    temperature=self.temperature,
                    action_masks=part.action_masks,
                )

        parts = parts_of(batch, self.micro_batch_tokens)
        return score(batch) if len(parts) == 1 else score_in_parts(score, batch, parts)

    def descend(self, loss: Tensor) -> Tensor:
        """One optimiser step down the gradient of `loss`; returns the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(loss)
        return self.precision.step(self.optimizer, self.trained, self.max_grad_norm)

    def with_reference(self, rollout: Rollout) -> Rollout:
        """The rollout with `ref_logprobs`, by one pass of the reference if they are not there."""
        if self.reference is None or rollout.ref_logprobs is not None:
            return rollout
        with torch.no_grad():  # no inference tensors: a loss may use these numbers
            return replace(rollout, ref_logprobs=self.score(rollout, self.reference).logprobs)

    def with_replay(self, rollout: Rollout) -> Rollout:
        """The rollout and those before it, if the algorithm learns from them again.

        What the policy says of them at this moment goes to `values` and `present_logprobs`: a
        target network that is renewed at every update.
        """
        if not self.algorithm.replay:
            return rollout
        self.replay.append(rollout)
        together = Rollout.cat(list(self.replay))
        with torch.no_grad():
            now = self.score(together)
        return replace(together, values=now.values, present_logprobs=now.logprobs)

    def _step(self, batch: Rollout, record: dict[str, list[float]]) -> float:
        """One step of the algorithm; returns how far the policy had moved since it sampled (k3)."""
        scores, reported = self.algorithm.step(self, batch)
        with torch.no_grad():
            # Under samples from the old policy, so the old one comes first.
            moved = losses.masked_mean(
                losses.kl_k3(batch.logprobs, scores.logprobs, batch.mask), batch.mask
            )
            entropy = losses.masked_mean(scores.entropies, batch.mask)
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


def _constant(rate: float) -> Callable[[float], float]:
    return lambda progress: rate

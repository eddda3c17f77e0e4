"""A rollout buffer that stores each sequence once."""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from agents.optimisation.minibatches import split_evenly
from agents.sb3.trajectories import Trajectories
from policies import Policy


class TrajectoryBuffer(RolloutBuffer):
    """SB3's rollout buffer for texts: memory and updates of O(T) where its own needs O(T^2).

    A generic buffer stores the whole text at every step and reads every prefix anew. This one
    stores each sequence once. `get` yields `Trajectories` in place of observations, and
    `SB3TokenPolicy` reads them in one causal pass. Rewards, values, advantages and returns are
    those of the base class. A minibatch holds whole sequences with about `batch_size` chosen
    tokens.

    Args:
        buffer_size: Steps of a rollout.
        observation_space: Padded token ids, Box of shape (L,).
        action_space: Tokens, Discrete(V).
        device: Where samples go.
        gae_lambda: 0 trusts the values (less variance, more bias), 1 trusts the rewards.
        gamma: Discount for each chosen token.
        n_envs: Rows of the environment.
        reference: A frozen policy. SB3 then learns from
            `reward - kl_coef * (logprob - reference logprob)` (Ziegler et al., 2019). It costs one
            pass of the reference for each rollout. Give it through `rollout_buffer_kwargs`.
        kl_coef: Weight of that penalty, in reward per nat.
        temperature: The policy's sampling temperature; the reference's log-probabilities use it,
            and `SB3TokenPolicy` refuses another one than its own.

    Attributes:
        kl: KL(policy || reference) of the last rollout in nats per token, estimator k1; NaN
            without a reference.

    Raises:
        ValueError: A text did not grow by the chosen tokens, or `kl_coef` without `reference`.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
        *,
        reference: Policy | None = None,
        kl_coef: float = 0.0,
        temperature: float = 1.0,
    ):
        if reference is None and kl_coef != 0:
            raise ValueError(
                f"kl_coef is {kl_coef} but there is no reference: add one to "
                "rollout_buffer_kwargs, such as policy.frozen_copy()"
            )
        self.reference, self.kl_coef, self.temperature = reference, kl_coef, temperature
        self.kl = float("nan")
        assert observation_space.shape is not None
        self.pad_token = int(action_space.n)  # type: ignore[attr-defined]
        self.length = observation_space.shape[0]
        # The base class keeps everything but the observations, so it gets no room for those.
        no_room = spaces.Box(0, self.pad_token, (0,), np.int64)
        super().__init__(buffer_size, no_room, action_space, device, gae_lambda, gamma, n_envs)

    def reset(self) -> None:
        """Forget the rollout."""
        shape = (self.buffer_size, self.n_envs)
        self.positions = np.zeros(shape, dtype=np.int64)  # the place of each chosen token
        self.sequences = np.zeros(shape, dtype=np.int64)  # the sequence of each chosen token
        self._running = np.full((self.n_envs, self.length + 1), self.pad_token, dtype=np.int64)
        self._numbers = np.arange(self.n_envs)
        self._closed: dict[int, NDArray[np.int64]] = {}
        super().reset()

    def add(
        self, obs: Any, action: Any, reward: Any, episode_start: Any, *rest: Any, **more: Any
    ) -> None:
        """See `RolloutBuffer.add`."""
        if self.pos:  # at the first step no episode of this rollout can have ended
            for row in np.flatnonzero(episode_start).tolist():
                self._closed[int(self._numbers[row])] = self._running[row].copy()
                self._numbers[row] = len(self._closed) + self.n_envs - 1
        rows = np.arange(self.n_envs)
        positions = (obs != self.pad_token).sum(1)
        # The newest observation holds all earlier ones, so each row keeps that one alone. It has
        # one more place than an observation, for the last token.
        self._running[:, : self.length] = obs
        self._running[rows, positions] = np.asarray(action).reshape(-1)
        self.positions[self.pos], self.sequences[self.pos] = positions, self._numbers
        super().add(np.empty((self.n_envs, 0)), action, reward, episode_start, *rest, **more)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: Any) -> None:
        """See `RolloutBuffer`; the KL penalty is subtracted from the rewards first."""
        texts = self._closed | dict(zip(self._numbers.tolist(), self._running, strict=True))
        self.tokens = np.stack([texts[number] for number in range(len(texts))])
        steps = np.arange(self.buffer_size * self.n_envs).reshape(self.positions.shape)
        # The step at which each token was chosen; -1 for tokens that nobody chose.
        self.steps = np.full(self.tokens.shape, -1)
        self.steps[self.sequences, self.positions] = steps
        self._check_growth(steps)
        if self.reference is not None:
            self._penalise(self.reference)
        super().compute_returns_and_advantage(last_values, dones)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Whole sequences in random order, about `batch_size` chosen tokens at a time."""
        assert self.full, "the rollout is not complete"
        counts = (self.steps >= 0).sum(1)
        order = np.random.permutation(len(counts))  # SB3 seeds numpy's global generator
        for sequences in split_evenly(counts, order, batch_size):
            yield self._samples(sequences)

    def _samples(self, sequences: NDArray[np.intp]) -> RolloutBufferSamples:
        steps = self.steps[sequences]
        chosen = steps >= 0
        # In the mask's order, as the policy gives its outputs: each choice meets its own numbers.
        at = steps[chosen]
        width = int(chosen.nonzero()[1].max()) + 1
        texts = Trajectories(
            self.to_torch(self.tokens[sequences, :width]),
            self.to_torch(chosen[:, :width]),
            None if self.reference is None else self.temperature,
        )
        arrays = (self.values, self.log_probs, self.advantages, self.returns)
        return RolloutBufferSamples(
            texts,  # type: ignore[arg-type]
            self.to_torch(self.actions.reshape(-1, 1)[at]),
            *(self.to_torch(array.reshape(-1)[at]) for array in arrays),
        )

    def _masks_at(self, steps: NDArray[np.intp]) -> torch.Tensor | None:
        """What could be chosen at each of these steps, (n, V) bool; None without action masks."""
        return None

    def _penalise(self, reference: Policy) -> None:
        chosen = self.steps >= 0
        with torch.no_grad():
            outputs = reference.outputs(
                torch.from_numpy(self.tokens).to(reference.device),
                torch.from_numpy(chosen).to(reference.device),
                temperature=self.temperature,
                action_masks=self._masks_at(self.steps[chosen]),
            )
        # `reshape` gives a view of the base class's arrays, so the rewards change in place.
        at = self.steps[chosen]
        difference = self.log_probs.reshape(-1)[at] - outputs.logprobs.cpu().numpy()[chosen]
        self.rewards.reshape(-1)[at] -= self.kl_coef * difference
        self.kl = float(difference.mean())

    def _check_growth(self, steps: NDArray[np.int64]) -> None:
        # Both ways: a token that was overwritten, and a place that two steps claim.
        at = self.sequences, self.positions
        wrong = np.argwhere((self.tokens[at] != self.actions[..., 0]) | (self.steps[at] != steps))
        if len(wrong):
            step, row = wrong[0]
            raise ValueError(
                f"step {step}, row {row}: the text does not hold the chosen token at its end "
                f"(position {self.positions[step, row]}); TrajectoryBuffer needs observations that "
                "grow by the chosen token: remove the wrapper that changes them, or leave out "
                "rollout_buffer_class"
            )

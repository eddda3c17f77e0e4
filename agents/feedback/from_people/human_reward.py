"""H(text, token): a model of the reward that a person gives by hand, learned while they watch.

H is linear in the hidden states of the frozen policy, as TAMER's is in features of a state (Knox
and Stone, 2009). It is no return to be bootstrapped: a person's reward already says how good a
choice was in the long run.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.feedback.from_people.watched import Watched
from agents.runs.state_files import read_state, write_state
from policies import Policy, load_policy
from policies.cache import PrefixCache
from textenv.rewards import Dense, dense
from textenv.step_batch import StepBatch

STEPS, LEARNING_RATE = 10, 0.1
"""Optimiser steps whenever keys were pressed, on all that was rewarded so far."""


class HumanReward(nn.Module):
    """H(text, token): the reward that the person would give for choosing a token behind a text.

    Args:
        trunk: The policy whose hidden states H is linear in; it is not trained.

    Attributes:
        head: Linear layer from a hidden state to the reward of every token; it starts at zero.
    """

    def __init__(self, trunk: Policy):
        super().__init__()
        self.trunk = trunk.frozen_copy()
        width = trunk.value_head.weight.shape[1]
        self.head = nn.Linear(width, trunk.vocab_size, device=trunk.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._optimizer = torch.optim.Adam(self.head.parameters(), LEARNING_RATE)

    def fit(self, hidden: Tensor, tokens: Tensor, rewards: Tensor, weights: Tensor) -> float:
        """Optimiser steps down the weighted squared error; returns the last one.

        Args:
            hidden: States of the texts before the tokens, shape (n, n_embd).
            tokens: What was chosen, shape (n,), int64.
            rewards: What the person thinks of it, shape (n,).
            weights: How sure it is that this is what the person meant, shape (n,).
        """
        # Hidden states are normalised, so that one step size does for all networks.
        features, loss = self._features(hidden), torch.zeros(())
        for _ in range(STEPS):
            self._optimizer.zero_grad()
            errors = self.head(features).gather(1, tokens[:, None]).squeeze(1) - rewards
            loss = (weights * errors**2).sum() / weights.sum()
            loss.backward()
            self._optimizer.step()
        return float(loss.detach())

    @torch.inference_mode()
    def of_all(self, hidden: Tensor) -> Tensor:
        """The reward of every token behind texts with these hidden states, shape (n, V)."""
        rewards: Tensor = self.head(self._features(hidden))
        return rewards

    def as_reward(self) -> Dense:
        """H as a dense reward of an environment, for PPO once the person has gone."""
        return dense(_Stepwise(self), "human_reward")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # environments deep-copy their arguments

    def save(self, folder: str | Path) -> None:
        """Write the head and the policy that it reads into `folder`."""
        self.trunk.save(folder)
        write_state(folder, "human_reward", {"head": self.head.state_dict()})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: Files are missing or damaged.
        """
        model = cls(load_policy(folder))
        model.head.load_state_dict(read_state(folder, "human_reward")["head"])
        return model

    def _features(self, hidden: Tensor) -> Tensor:
        return nn.functional.normalize(hidden.clone().float(), dim=1)


class _Stepwise:
    """H of the new tokens of a step."""

    def __init__(self, model: HumanReward):
        self.model = model
        self._cache: PrefixCache | None = None

    def __call__(self, batch: StepBatch) -> NDArray[np.float64]:
        trunk = self.model.trunk
        before = batch.tokens.copy()
        before[np.arange(len(batch)), batch.lengths - 1] = trunk.pad_token
        if self._cache is None or self._cache.shape != before.shape:
            self._cache = trunk.new_cache(*before.shape)
        rewards = self.model.of_all(trunk.last_hidden(before, self._cache))
        chosen = rewards[torch.arange(len(batch)), torch.from_numpy(batch.actions)]
        return chosen.double().cpu().numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Memory:
    """All that a person has rewarded, with the hidden states that H is fitted on.

    Silence is not in it: nobody knows whether it meant anything.

    Args:
        model: H.
    """

    def __init__(self, model: HumanReward):
        self.model = model
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, watched: Watched) -> None:
        """Remember what was rewarded of an answer."""
        part = self._of(watched)
        if part is not None:
            self._parts.append(part)

    def learn(self, present: Watched | None = None) -> None:
        """Fit H to everything, and to an answer that is not finished yet."""
        part = None if present is None else self._of(present)
        parts = [*self._parts, *([] if part is None else [part])]
        if parts:
            self.model.fit(*(torch.cat(some) for some in zip(*parts, strict=True)))

    @torch.no_grad()
    def _of(self, watched: Watched) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Hidden states, tokens, rewards and weights of the rewarded tokens."""
        trunk, begin = self.model.trunk, len(watched.prompt_tokens)
        rewarded = [weight > 0 for weight in watched.weights]
        if not any(rewarded):
            return None
        tokens = torch.tensor([[*watched.prompt_tokens, *watched.tokens]], device=trunk.device)
        mask = torch.tensor([[*([False] * begin), *rewarded]], device=trunk.device)
        lengths = torch.tensor([tokens.shape[1]], device=trunk.device)
        hidden = trunk.hidden_before(tokens, mask, lengths)
        kept = torch.tensor(rewarded)
        rewards, weights = (
            torch.tensor(x)[kept].to(trunk.device) for x in (watched.rewards, watched.weights)
        )
        return hidden, tokens[mask], rewards, weights

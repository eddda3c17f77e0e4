"""What a worker does: it plays its share of the rows with weights that it is sent."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.collector import Collector, collector_from, in_order, share_of
from agents.remote.weights import Buffer, unpack
from agents.rollout import TOLD, Rollout
from policies import Policy
from textenv.errors import PromptError, WorldError
from textenv.starts import Start


@dataclass(frozen=True)
class Order:
    """What a worker is to collect.

    Attributes:
        kind: `steps`, `episodes` or `starts`.
        count: How many steps or episodes.
        version: Of the weights to do it with.
        names: Which weights the buffer that comes with it holds.
        starts: For `starts`, what to play on from, each once.
    """

    kind: str
    count: int
    version: int
    names: list[str] = field(default_factory=list)
    starts: tuple[Start, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain types; orders of starts are never kept."""
        return {name: getattr(self, name) for name in ("kind", "count", "version", "names")}


@dataclass(frozen=True)
class Part:
    """What a worker gives back.

    Attributes:
        arrays: The rollout's arrays by name, each sequence once; None before the first order.
        told: Its fields that are no arrays.
        state: Of the worker's collector afterwards; None if it cannot be saved.
        unsaved: Why it cannot.
        world_error: What went wrong in the last conversation whose world failed.
    """

    arrays: Mapping[str, Any] | None
    told: Mapping[str, Any]
    state: dict[str, Any] | None
    unsaved: Exception | None
    world_error: str

    @property
    def rollout(self) -> Rollout:
        """The rollout, on the processor."""
        assert self.arrays is not None
        return Rollout(**_each(self.arrays, _tensor), **self.told)


class Worker:
    """A copy of the policy and of the rows `index * n` on of an environment, n rows in all.

    Args:
        policy: The policy; it becomes this worker's own.
        envs: The whole environment, of which the share is taken.
        index: Number of this worker, from 0.
        of: Number of workers.
        temperature: Logits are divided by this before sampling.
        seed: Seed of the whole environment's rows and of the choices.
        device: Where the policy computes.
        threads: Processor threads of the policy; None leaves them as they are.
    """

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        index: int,
        of: int,
        temperature: float,
        seed: int,
        device: str = "cpu",
        threads: int | None = None,
    ):
        if threads is not None:
            torch.set_num_threads(threads)
        self.policy = policy.to(device)
        self._version: int | None = None
        self._temperature, self._seed = temperature, seed
        self._share = partial(share_of, envs, index, of)

    def begin(self, state: dict[str, Any] | None = None) -> Part:
        """Begin anew, or go on from a state; gives what is known before the first order."""
        self.collector = Collector(self.policy, self._share(), self._temperature, self._seed)
        if state is not None:
            # A copy: what comes from another process is often read-only.
            self.collector.load_state_dict(copy.deepcopy(state))
        return self._part(None)

    def play(self, order: Order, weights: Buffer) -> Part:
        """Carry out an order with its weights."""
        if order.version != self._version:
            unpack(weights, order.names, self.policy)
            self._version = order.version
        if order.kind == "steps":
            return self._part(self.collector.collect_steps(order.count))
        if order.kind == "episodes":
            return self._part(self.collector.collect_episodes(order.count))
        envs = self.collector.envs
        playing = collector_from(self.policy, envs, order.starts, self._temperature, self._seed)
        return self._part(in_order(playing.collect_episodes(len(order.starts))))

    def _part(self, rollout: Rollout | None) -> Part:
        state, unsaved = None, None
        try:
            state = self.collector.state_dict()
        except (PromptError, WorldError) as error:  # no reason not to play
            unsaved = error
        if rollout is None:
            return Part(None, {}, state, unsaved, self.collector.world_error)
        rollout = rollout.to("cpu")
        told = {name: getattr(rollout, name) for name in (*TOLD, "mask_size")}
        return Part(
            _each(rollout.arrays(), _array), told, state, unsaved, self.collector.world_error
        )


def _array(tensor: torch.Tensor) -> Any:
    return tensor.numpy()


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy that may be written to


def _each(arrays: Mapping[str, Any], function: Any) -> dict[str, Any]:
    """`function` of every array, those in dicts included."""
    return {
        name: _each(value, function) if isinstance(value, Mapping) else function(value)
        for name, value in arrays.items()
    }

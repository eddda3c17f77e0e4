"""A pool of workers in the place of a learner's collector: orders, parts, and how old weights get.

Every worker has its rows and its orders in a fixed sequence, and every order names its weights. So
what a pool gives depends neither on the workers' speed nor on which of them die: an order that got
lost is carried out again from the state before it, by a new worker.
"""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from agents.collector import numbered
from agents.remote.weights import Buffer, SentWeights
from agents.remote.worker import Order, Part
from agents.rollout import Rollout
from policies import Policy
from textenv.errors import (
    CheckpointError,
    LostProcessError,
    ReplacedWorkerWarning,
    UnmetNeedError,
)
from textenv.starts import Start

TRIES = 3
"""So many workers may die over one order; then the order is taken to be what kills them."""


class WorkerDiedError(Exception):
    """A worker is gone, and with it what it was asked for."""


@dataclass(eq=False)
class _Asked:
    """An order that was given and not answered yet."""

    order: Order
    buffer: Buffer
    answer: Any
    lost: int = 0


@dataclass(eq=False)
class _Place:
    """A worker's place in the pool, whoever fills it.

    Attributes:
        worker: The worker.
        state: Of its collector after the last part that was taken; None if it cannot be saved.
        unsaved: Why it cannot.
        asked: What it has yet to answer, oldest first.
        taken: How many parts were taken.
    """

    worker: Any
    state: dict[str, Any] | None = None
    unsaved: Exception | None = None
    asked: deque[_Asked] = field(default_factory=deque)
    taken: int = 0


class Pool(ABC):
    """Collects as a `Collector` does, by workers which each play an equal share of the rows.

    With a `staleness` of 0 a rollout is of the present weights: the workers play while the learner
    waits. With N workers always have N more rollouts to play, so that they go on while the learner
    updates; a rollout is then used N updates after the weights it was sampled with, never more.
    The first N + 1 are all of the first weights.

    Within a rollout of whole episodes an episode that ran on from the one before has tokens of
    earlier weights, as it has in a `Collector`: the bound holds for rollouts of steps token by
    token.

    Args:
        policy: The policy that learns; workers have copies.
        envs: A `TextVectorEnv`, wrapped or not, of which workers play shares; with one worker any
            vector environment.
        temperature: Logits are divided by this before sampling.
        seed: Seed of the rows and of the choices, as a `Collector` of the whole would have it.
        workers: How many.
        staleness: How many updates old the weights of a rollout are at most.

    Raises:
        UnmetNeedError: The rows cannot be divided among the workers.
        ValueError: `workers` or `staleness` is too small.

    Collecting raises what a `Collector` raises, and
        LostProcessError: Workers died over the same order again and again.
    """

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        temperature: float = 1.0,
        seed: int | None = None,
        *,
        workers: int,
        staleness: int = 0,
    ):
        if workers < 1 or staleness < 0:
            raise ValueError(
                f"workers is {workers} and staleness {staleness}: there must be a worker, and "
                "weights cannot be of the future"
            )
        self.policy, self.envs, self.temperature = policy, envs, temperature
        # One seed numbers the episodes of all workers.
        self.seed = int(np.random.default_rng().integers(2**63)) if seed is None else seed
        self.workers, self.staleness = workers, staleness
        self.world_error = ""
        self.weights = SentWeights(policy)
        self._posted: tuple[int, Buffer, Any] | None = None
        self._continued = 0
        self._raised = False  # one of the answers was an exception: all is asked again
        self._report: dict[str, float] = {}
        self._places = self._hire_all([None] * workers)

    # ---------------------------------------------------------------- what a subclass provides

    @abstractmethod
    def hire(self, index: int) -> Any:
        """A new worker for these rows, as the policy is now."""

    @abstractmethod
    def ask(self, worker: Any, method: str, *arguments: Any) -> Any:
        """Ask a worker for what a method of `Worker` gives; it comes to it in turn."""

    @abstractmethod
    def take(self, answer: Any) -> Part:
        """Wait for what a worker was asked for.

        Raises:
            WorkerDiedError: It will not come.
            LostProcessError: Nor would it from another worker.
        """

    def post(self, buffer: Buffer) -> Any:
        """What the workers are given in the place of the weights."""
        return buffer

    # ---------------------------------------------------------------- collecting

    def collect_steps(self, n_steps: int) -> Rollout:
        """As `Collector.collect_steps`; the sequences of each worker stand together."""
        return self._collect("steps", n_steps)

    def collect_episodes(self, n_episodes: int) -> Rollout:
        """As `Collector.collect_episodes`; every worker plays an equal part of them.

        Raises:
            ValueError: They cannot be divided among the workers in whole groups.
        """
        group_size = int(getattr(self.envs.unwrapped, "group_size", 1))
        if n_episodes % (self.workers * group_size):
            raise ValueError(
                f"n_episodes is {n_episodes}, which {self.workers} workers cannot share equally in "
                f"groups of {group_size}: take a multiple of {self.workers * group_size}"
            )
        return self._collect("episodes", n_episodes // self.workers)

    def collect_from(self, starts: Sequence[Start], n: int = 1) -> Rollout:
        """As `Collector.collect_from`, with the present weights.

        Workers come to it after what they were asked for before.
        """
        queue = numbered(starts, n, self.seed, self._continued)
        self._continued += len(queue)
        self._begin_report()
        bounds = np.linspace(0, len(queue), self.workers + 1).astype(int).tolist()
        asked = []
        for place, begin, end in zip(self._places, bounds, bounds[1:], strict=False):
            if begin < end:
                chunk = tuple(queue[begin:end])
                asked.append((place, self._give(place, "starts", len(chunk), chunk)))
        try:
            parts = [self._answered(place, one).rollout for place, one in asked]
        finally:  # whatever was raised, nobody waits for them
            for place, one in asked:
                place.asked.remove(one)
        rollout = Rollout.cat(parts).to(self.policy.device)
        return replace(rollout, groups=rollout.groups // n)

    def report(self) -> dict[str, float]:
        """Numbers of the last rollout, for an update's metrics."""
        return dict(self._report)

    def forget(self) -> None:
        """Drop the packed weights: they have changed."""
        self._posted = None

    def _collect(self, kind: str, count: int) -> Rollout:
        self._begin_report()
        if self._raised:
            for index, place in enumerate(self._places):
                self._check_saved(place, f"worker {index} was interrupted")
                self._start_over(place)
            self._raised = False
        for place in self._places:
            while len(place.asked) <= self.staleness:
                self._give(place, kind, count)
        for place in self._places:
            one = place.asked[0]
            if (one.order.kind, one.order.count) != (kind, count):
                raise UnmetNeedError(
                    f"workers that are {self.staleness} rollouts ahead were asked for "
                    f"{one.order.count} {one.order.kind} each and not for {count} {kind}: always "
                    "collect the same with a staleness above 0"
                )
        # All of them, before any counts as taken: what is taken is never played again, and what is
        # not, because another one raised, is.
        parts = [self._answered(place, place.asked[0]) for place in self._places]
        for place, part in zip(self._places, parts, strict=True):
            done = place.asked.popleft()
            place.state, place.unsaved = part.state, part.unsaved
            place.taken += 1
            self.world_error = part.world_error or self.world_error
        self._report["weights_age"] = float(self.weights.version - done.order.version)
        return Rollout.cat([part.rollout for part in parts]).to(self.policy.device)

    def _begin_report(self) -> None:
        self.weights.look()
        names = ("weights_age", "waiting_seconds", "replaced_workers")
        self._report = dict.fromkeys(names, 0.0)

    def _give(self, place: _Place, kind: str, count: int, starts: tuple[Start, ...] = ()) -> _Asked:
        """Give an order to be carried out with the present weights."""
        version = self.weights.version
        if self._posted is None or self._posted[0] != version:
            packed = self.weights.packed()
            self._posted = version, packed, self.post(packed)
        _, buffer, posted = self._posted
        order = Order(kind, count, version, [*self.weights.names], starts)
        answer = self.ask(place.worker, "play", order, posted)
        place.asked.append(_Asked(order, buffer, answer))
        return place.asked[-1]

    def _answered(self, place: _Place, one: _Asked) -> Part:
        """The answer to an order, by whichever worker."""
        begin = time.perf_counter()
        while True:
            try:
                part = self.take(one.answer)
                break
            except WorkerDiedError as error:
                one.lost += 1
                if one.lost == TRIES:
                    one.lost = 0  # who collects again gets as many tries
                    raise LostProcessError(
                        f"{TRIES} workers died one after the other when they were asked for "
                        f"{one.order.count} {one.order.kind}; the last time: {error}"
                    ) from error
                self._replace(place, error)
            except Exception:  # the others' answers may be the same
                self._raised = True
                raise
        self._report["waiting_seconds"] += time.perf_counter() - begin
        return part

    def _replace(self, place: _Place, error: Exception) -> None:
        """Fill a place anew; all that was asked of it is asked again, from the state before."""
        index = self._places.index(place)
        self._check_saved(place, f"worker {index} died ({error})")
        self._report["replaced_workers"] += 1
        warnings.warn(
            f"worker {index} died and was replaced; its episodes are played again: {error}",
            ReplacedWorkerWarning,
            stacklevel=5,
        )
        place.worker = self.hire(index)
        self._start_over(place)

    def _check_saved(self, place: _Place, what: str) -> None:
        if place.state is None and place.taken:
            raise LostProcessError(
                f"{what} and its episodes cannot be played again, since they cannot be saved: "
                f"{place.unsaved}"
            )

    def _start_over(self, place: _Place) -> None:
        """Ask a worker once more for all that it has yet to answer, from the state before it."""
        try:
            self.take(self.ask(place.worker, "begin", place.state))
        except WorkerDiedError:  # so are the orders that follow, where it is noticed
            pass
        for one in place.asked:
            one.answer = self.ask(place.worker, "play", one.order, self.post(one.buffer))

    def _hire_all(self, states: Sequence[dict[str, Any] | None]) -> list[_Place]:
        places = [_Place(self.hire(index)) for index in range(self.workers)]
        begun = [
            self.ask(place.worker, "begin", state)
            for place, state in zip(places, states, strict=True)
        ]
        for index, (place, answer) in enumerate(zip(places, begun, strict=True)):
            try:
                part = self.take(answer)
            except WorkerDiedError as error:
                raise LostProcessError(f"worker {index} could not begin: {error}") from error
            place.state, place.unsaved = part.state, part.unsaved
        return places

    # ---------------------------------------------------------------- saving

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next rollouts depend on, as arrays and plain types.

        Nobody waits for it: what workers have yet to answer is saved as orders, with the weights
        that each is to be carried out with, and asked for again by `load_state_dict`.
        """
        for place in self._places:
            if place.state is None and place.unsaved is not None:
                raise place.unsaved
        self.weights.look()  # what is written from here on is another version
        weights = {
            str(one.order.version): one.buffer for place in self._places for one in place.asked
        }
        return {
            "version": self.weights.version,
            "continued": self._continued,
            "weights": weights,
            "workers": [
                {"state": place.state, "orders": [one.order.to_json() for one in place.asked]}
                for place in self._places
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, with new workers; there must be as many of them.

        Raises:
            CheckpointError: It was saved with another number of workers.
        """
        workers = state["workers"]
        if len(workers) != self.workers:
            raise CheckpointError(
                f"it was saved with {len(workers)} workers, and there are {self.workers}: collect "
                "with as many"
            )
        self._continued = state["continued"]
        self.weights, self._posted = SentWeights(self.policy), None
        self.weights.version = state["version"]
        for worker in workers:  # what was written although it is frozen is sent from then on
            for saved in worker["orders"]:
                self.weights.names += [n for n in saved["names"] if n not in self.weights.names]
        posted = {version: self.post(np.asarray(x)) for version, x in state["weights"].items()}
        self._places = []  # the workers of before leave room for the new ones
        self._places = self._hire_all([worker["state"] for worker in workers])
        for place, worker in zip(self._places, workers, strict=True):
            for saved in worker["orders"]:
                order, version = Order(**saved), str(saved["version"])
                buffer = np.asarray(state["weights"][version])
                answer = self.ask(place.worker, "play", order, posted[version])
                place.asked.append(_Asked(order, buffer, answer))

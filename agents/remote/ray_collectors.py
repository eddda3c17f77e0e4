"""Workers as Ray actors."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gymnasium.vector import VectorEnv

from agents.remote.pool import Pool, WorkerDiedError
from agents.remote.weights import Buffer
from agents.remote.worker import Part, Worker
from policies import Policy
from textenv.errors import LateWorkerWarning, LostProcessError, UnmetNeedError
from textenv.imports import optional

PATIENCE = 3.0
"""Seconds after which it is said that workers wait for processors."""
_COLOURS = re.compile(r"\x1b\[\d+m")


class RayCollectors(Pool):
    """A pool whose workers are Ray actors, on this machine or others.

        Learner(policy, envs, PPO(), n_episodes=256, collector=partial(RayCollectors, workers=8))

    Policy and environment, with its reward and its world, are pickled once and sent to every
    worker; from then on the weights go out as one buffer for each version, and rollouts come back
    as arrays. A slow reward or world therefore slows a worker alone. `ray.init()` is called if it
    was not; call it yourself to join a cluster.

    A worker that dies is replaced. The new one goes on from the state after the last part that was
    taken, with the same weights and random numbers, so that its episodes are those that were lost.
    Where the state cannot be saved, as with some worlds, the learner stops instead.

    Args:
        policy: See `Pool`, as for the others up to `staleness`.
        envs: See there; it must be possible to pickle it (functions of a script may be anything).
        temperature: See there.
        seed: See there.
        workers: How many actors.
        staleness: See there.
        num_cpus: Processors of each worker, which computes in as many threads.
        num_gpus: GPUs of each worker; with any the policy computes on it.

    Raises:
        LostProcessError: A worker cannot begin, for instance since a module that the environment
            needs is not there.
        MissingExtraError: Ray is not installed.
        UnmetNeedError: The cluster has not so many processors or GPUs, or the rows cannot be
            divided.
        ValueError: `workers` or `staleness` is too small.
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
        num_cpus: float = 1,
        num_gpus: float = 0,
    ):
        with optional("ray", extra="ray", purpose="collecting in other processes"):
            import ray
        self._ray = ray
        if not ray.is_initialized():
            ray.init()
        wanted = {"CPU": workers * num_cpus, "GPU": workers * num_gpus}
        there = ray.cluster_resources()
        for kind, count in wanted.items():
            if count > there.get(kind, 0):
                raise UnmetNeedError(
                    f"{workers} workers need {count:g} {kind}s and Ray has "
                    f"{there.get(kind, 0):g}: take fewer workers, less for each "
                    f"(num_{kind.lower()}s), or start Ray with more (ray.init(num_cpus=...))"
                )
        self._wait_for_room(wanted)
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._sent: Any = None
        super().__init__(policy, envs, temperature, seed, workers=workers, staleness=staleness)

    def _wait_for_room(self, wanted: Mapping[str, float]) -> None:
        """Say that there is too little at the moment, unless there soon is enough."""
        for _ in range(int(PATIENCE / 0.1) + 1):
            free = self._ray.available_resources()
            short = [kind for kind, count in wanted.items() if count > free.get(kind, 0)]
            if not short:
                return
            gc.collect()  # a learner that was let go of may hang in a circle, and hold its workers
            time.sleep(0.1)  # who has just let go of them is still counted
        told = " and ".join(
            f"{wanted[kind]:g} {kind}s, {free.get(kind, 0):g} free" for kind in short
        )
        warnings.warn(
            f"the workers wait for processors of Ray that others have ({told}): end the programs, "
            "or let go of the learners, that have them (del learner)",
            LateWorkerWarning,
            stacklevel=3,
        )

    def hire(self, index: int) -> Any:
        """A new actor; policy and environment are put into Ray's store for the first one."""
        if self._sent is None:
            policy = self.policy
            on_processor = policy if policy.device.type == "cpu" else copy.deepcopy(policy).cpu()
            # As bytes: arrays that Ray sends by itself cannot be written to.
            self._sent = self._ray.put(self._ray.cloudpickle.dumps((on_processor, self.envs)))
        actor = self._ray.remote(_Actor).options(**self._resources)
        return actor.remote(
            self._sent,
            index,
            self.workers,
            self.temperature,
            self.seed,
            device="cuda" if self._resources["num_gpus"] else "cpu",
            threads=max(int(self._resources["num_cpus"]), 1),
        )

    def load_state_dict(self, state: Any) -> None:
        """As `Pool.load_state_dict`; the new workers begin with the policy as it is now."""
        self._sent = None
        super().load_state_dict(state)

    def ask(self, worker: Any, method: str, *arguments: Any) -> Any:
        """A reference to what will come."""
        return getattr(worker, method).remote(*arguments)

    def post(self, buffer: Buffer) -> Any:
        """A reference to the weights, which Ray sends to each machine once."""
        return self._ray.put(buffer)

    def take(self, answer: Any) -> Part:
        """What was asked for; an exception of the worker's is raised here as itself."""
        errors = self._ray.exceptions
        try:
            part: Part = self._ray.get(answer)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if not isinstance(cause, Exception):  # it could not be sent
                raise
            raise cause from error
        except errors.RayError as error:
            # What happened stands first, and often why in the end.
            lines = [line.strip() for line in _COLOURS.sub("", str(error)).strip().splitlines()]
            if getattr(error, "actor_init_failed", False):  # so would that of any other
                raise LostProcessError(
                    f"a worker could not begin: {lines[-1]}. Policy and environment are unpickled "
                    "there; a module of yours must be one that it can import: define it in the "
                    "script that is run, install it, or put its folder into PYTHONPATH before Ray "
                    "is started"
                ) from error
            raise WorkerDiedError(" ... ".join(dict.fromkeys([lines[0], lines[-1]]))) from error
        # A copy: arrays in Ray's store cannot be written to, which those who save them may want.
        return replace(part, state=copy.deepcopy(part.state))


class _Actor(Worker):
    """A worker whose policy and environment come as bytes."""

    def __init__(self, packed: bytes, *arguments: Any, **options: Any):
        policy, envs = pickle.loads(packed)
        super().__init__(policy, envs, *arguments, **options)

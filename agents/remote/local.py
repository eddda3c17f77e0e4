"""Workers in this process, one after the other."""

from __future__ import annotations

import copy
from typing import Any

from agents.remote.pool import Pool
from agents.remote.worker import Part, Worker


class LocalCollectors(Pool):
    """A pool whose workers are objects of this process: nothing is faster, everything else equal.

    Use it to see what a staleness costs before machines are rented, and in tests: on the same kind
    of processor its rollouts are those of `RayCollectors`, bit for bit.

    The arguments are those of `Pool`.
    """

    def hire(self, index: int) -> Worker:
        """A worker with a copy of the policy; tokenizer and reward are shared."""
        policy = copy.deepcopy(self.policy)
        return Worker(policy, self.envs, index, self.workers, self.temperature, self.seed)

    def ask(self, worker: Worker, method: str, *arguments: Any) -> Part | Exception:
        """The result itself, or what was raised: it is told when the result is wanted."""
        try:
            part: Part = getattr(worker, method)(*arguments)
        except Exception as error:
            return error
        return part

    def take(self, answer: Part | Exception) -> Part:
        """The result, or the exception."""
        if isinstance(answer, Exception):
            raise answer
        return answer

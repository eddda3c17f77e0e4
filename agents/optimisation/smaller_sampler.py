"""Rollouts by a smaller copy of the policy, such as one with weights of eight bits."""

from collections.abc import Callable, Sequence
from typing import Any

from gymnasium.vector import VectorEnv

from agents.collector import Collector
from agents.rollout import Rollout
from policies import Policy
from textenv.starts import Start


class SmallerSampler(Collector):
    """Collects with a smaller copy of the policy, which is made anew at each rollout.

        Learner(..., collector=partial(SmallerSampler, smaller=int8), importance_cap=2.0)

    The copy samples from another distribution than the one that learns, so the learner needs an
    `importance_cap`: it computes the policy's own log-probabilities and weighs the tokens (Yao et
    al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025). Use it
    where the copy answers quicker or fits where the policy does not.

    Args:
        policy: The policy that learns.
        envs: As for `Collector`.
        temperature: The same.
        seed: The same.
        smaller: Makes the copy: `policies.compression.int8`, `partial(pruned, share=0.5)`, or any
            function of a policy.

    Attributes:
        staleness: 1: a rollout is never of the weights that learn from it.
    """

    staleness = 1

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        temperature: float = 1.0,
        seed: int | None = None,
        *,
        smaller: Callable[[Policy], Policy],
    ):
        self._learns, self._smaller = policy, smaller
        super().__init__(smaller(policy), envs, temperature, seed)

    def collect_steps(self, n_steps: int) -> Rollout:
        """As `Collector`, with a copy of the present weights."""
        self._renew()
        return super().collect_steps(n_steps)

    def collect_episodes(self, n_episodes: int) -> Rollout:
        """As `Collector`, with a copy of the present weights."""
        self._renew()
        return super().collect_episodes(n_episodes)

    def collect_from(self, starts: Sequence[Start], n: int = 1) -> Rollout:
        """As `Collector`, with a copy of the present weights."""
        self._renew()
        return super().collect_from(starts, n)

    def _renew(self) -> None:
        self.policy = self._smaller(self._learns)
        self.cache = self.policy.new_cache(*self.cache.shape)

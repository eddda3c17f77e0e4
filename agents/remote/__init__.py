"""Rollouts by other processes, on this machine or others.

A pool takes the place of a learner's collector: workers play shares of the environment's rows with
copies of the policy, in step with the updates or some updates ahead of them.
"""

from agents.remote.local import LocalCollectors
from agents.remote.pool import Pool
from agents.remote.ray_collectors import RayCollectors

__all__ = ["LocalCollectors", "Pool", "RayCollectors"]

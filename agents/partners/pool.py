"""Earlier weights of a policy, against which its present ones play."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies import Policy


class Pool:
    """Snapshots of a policy; each episode plays against one of them.

    A policy that plays its present self alone may go round in circles: rock, paper, scissors. The
    best answer to all earlier selves is fictitious play (Brown, 1951; for deep RL Heinrich and
    Silver, 2016, arXiv:1603.01121), whose average strategy converges in zero-sum games. It is the
    snapshots together that do; the last one alone may still turn.

        pool = players.partner = Pool(policy)
        for update in learner.updates(total_tokens):
            if update.number % 10 == 0:
                pool.add()

    Every snapshot is a copy of the whole policy, in memory and in a saved state.

    Args:
        policy: The policy that learns; its weights at this moment are the first snapshot.
        present: Share of the episodes that are played against the present weights instead.

    Attributes:
        snapshots: Frozen copies, oldest first.

    Raises:
        ValueError: `present` is not a share.
    """

    def __init__(self, policy: Policy, present: float = 0.0):
        if not 0 <= present <= 1:
            raise ValueError(f"present is {present}; a share is within 0..1")
        self.policy, self.present = policy, present
        self.snapshots: list[Policy] = []
        self.add()

    def add(self) -> None:
        """Add the present weights."""
        self.snapshots.append(self.policy.frozen_copy())

    def choose(self, rng: np.random.Generator) -> int | None:
        """Number of the snapshot that an episode plays against; None for the present weights.

        All snapshots are equally likely. Episodes of a group get the same one, unless a snapshot
        was added after the first of them began.
        """
        share, place = rng.random(2)
        return None if share < self.present else int(place * len(self.snapshots))

    def player(self, number: int | None) -> Policy:
        """The policy that `choose` named."""
        return self.policy if number is None else self.snapshots[number]

    def state_dict(self) -> dict[str, Any]:
        """The snapshots' weights; they never change, so they are not copied."""
        return {"snapshots": [snapshot.state_dict() for snapshot in self.snapshots]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the snapshots that `state_dict` gave, for a policy of the same shape."""
        self.snapshots = []
        for weights in state["snapshots"]:
            self.add()
            self.snapshots[-1].load_state_dict(weights)

"""Keeping a reward from being copied with the spec of its environment."""

import types
from typing import Any

from gymnasium.envs.registration import EnvSpec

from textenv.rewards import shared


class SharedRewardSpec:
    """The attribute `spec` of an environment.

    Gymnasium deep-copies the arguments in a spec whenever it is read through a wrapper or used to
    make an environment again. A reward that holds a network must not be copied with them, so it is
    put into the spec as `textenv.rewards.shared`, unless it knows how to be copied.
    """

    def __get__(self, env: Any, owner: type) -> EnvSpec | None:
        return None if env is None else env.__dict__.get("_spec")

    def __set__(self, env: Any, spec: EnvSpec | None) -> None:
        if spec is not None:
            reward: Any = spec.kwargs.get("reward")
            copies_well = isinstance(reward, str | types.FunctionType | None)
            if not copies_well and not hasattr(reward, "__deepcopy__"):
                spec.kwargs["reward"] = shared(reward)
        env.__dict__["_spec"] = spec

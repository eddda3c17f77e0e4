"""Keeping a reward from being copied with the spec of its environment."""

import types
from typing import Any

from gymnasium.envs.registration import EnvSpec

from textenv.reward_adapters import Adapter
from textenv.rewards import Weighted, shared

# These are not copied with a spec, or cost nothing to copy.
COPY_WELL = (str, types.FunctionType, types.NoneType, Adapter, Weighted)


class SharedRewardSpec:
    """The attribute `spec` of an environment.

    Gymnasium deep-copies the arguments in a spec whenever the spec is read through a wrapper or
    used to make an environment again. A reward that holds a network must not be copied with them,
    so it is put into the spec as `textenv.rewards.shared`. This holds for objects that can be
    copied, too, such as TorchScript modules.
    """

    def __get__(self, env: Any, owner: type) -> EnvSpec | None:
        return None if env is None else env.__dict__.get("_spec")

    def __set__(self, env: Any, spec: EnvSpec | None) -> None:
        if spec is not None:
            reward: Any = spec.kwargs.get("reward")
            if not isinstance(reward, COPY_WELL):
                spec.kwargs["reward"] = shared(reward)
        env.__dict__["_spec"] = spec

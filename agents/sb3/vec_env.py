"""A Gymnasium vector environment as Stable-Baselines3's `VecEnv`."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from textenv.reward_terms import check_paid


def to_vec_env(envs: VectorEnv[Any, Any, Any]) -> "TextVecEnv":
    """The native vector environment as an SB3 `VecEnv`: one step for all rows, no processes."""
    return TextVecEnv(envs)


class TextVecEnv(VecEnv):
    """All rows of one Gymnasium vector environment.

    When an episode ends, the row's `infos` hold the environment's final info, and with it
    `terminal_observation`, `TimeLimit.truncated` and `episode` (return `r`, length `l` and seconds
    `t`, as SB3's `Monitor` gives them). The infos of a start go to `reset_infos`.

    Args:
        envs: A vector environment in the SAME_STEP autoreset mode, which is the default of ours.

    Raises:
        ValueError: The autoreset mode is another one (SB3 expects that a row restarts in the step
            that ends it), or rows may wait for their world.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]):
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"the autoreset mode is {mode}; Stable-Baselines3 restarts a row in the step that "
                "ends it: make the environment with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        if getattr(envs.unwrapped, "world_wait", "all") != "all":
            raise ValueError(
                "world_wait is 'async': Stable-Baselines3 would learn from actions of rows that "
                "wait, which are ignored; leave world_wait out"
            )
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._begin = time.time()

    # ---------------------------------------------------------------- stepping

    def reset(self) -> NDArray[np.int64]:
        """Start new episodes everywhere, with the seeds and options set before."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        observations, infos = self.envs.reset(seed=seeds, options=_merged(self._options))
        self.reset_infos = _by_row(infos, self.num_envs)
        self._returns[:], self._lengths[:] = 0.0, 0
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One step of every row.

        Raises:
            RewardValueError: A reward is too large for SB3's float32.
        """
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        check_paid(rewards)  # before the cast to float32 below
        self._returns += rewards
        self._lengths += 1
        dones = terminated | truncated
        # Gymnasium has one dict of arrays, SB3 a dict for each row. Most steps end no row, and
        # their dicts stay empty.
        row_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            ends = _by_row(infos["final_info"], self.num_envs)
            starts = _by_row(infos, self.num_envs)
            for row in np.flatnonzero(dones).tolist():
                row_infos[row] = ends[row] | {
                    "terminal_observation": infos["final_obs"][row],
                    "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
                    "episode": {
                        "r": float(self._returns[row]),
                        "l": int(self._lengths[row]),
                        "t": round(time.time() - self._begin, 6),
                    },
                }
                # What is left in `infos` of such a row is about the episode that begins.
                del starts[row]["final_obs"], starts[row]["final_info"]
                self.reset_infos[row] = starts[row]
            self._returns[dones], self._lengths[dones] = 0.0, 0
        return observations, rewards.astype(np.float32), dones, row_infos

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    # ---------------------------------------------------------------- one by one

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the environment, the same for all rows."""
        return [self._find(attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment.

        Raises:
            ValueError: `indices` names some rows only; all rows are one object.
        """
        rows = list(self._get_indices(indices))
        if sorted(rows) != list(range(self.num_envs)):
            raise ValueError(
                f"{attr_name} cannot be set for rows {rows} alone: all rows share one environment"
            )
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the environment once.

        Returns:
            For each row its entry of the result, if that is an array, list or tuple with one entry
            for each row, such as that of `action_masks`; else the result itself.
        """
        result = self._find(method_name)(*method_args, **method_kwargs)
        by_row = isinstance(result, np.ndarray | list | tuple) and len(result) == self.num_envs
        return [result[row] if by_row else result for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for `Monitor`, whose statistics are there already; False for all other wrappers."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    @property
    def tokenizer(self) -> Any:
        """The environment's tokenizer, if it has one: `TransformerPolicy.for_env` keeps it."""
        return getattr(self.envs.unwrapped, "tokenizer", None)

    def _find(self, name: str) -> Any:
        return getattr(self.envs if hasattr(self.envs, name) else self.envs.unwrapped, name)


def _by_row(infos: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's infos of a vector (key: array, _key: which rows have it) as a dict for each row.

    Entries without such a mask belong to no row and are left out.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, values in infos.items():
        told = infos.get(f"_{key}")
        if key.startswith("_") or told is None:
            continue
        parts = _by_row(values, num_envs) if isinstance(values, Mapping) else values
        for row in np.flatnonzero(told).tolist():
            rows[row][key] = parts[row]
    return rows


def _merged(options: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One dict of lists from a dict for each row.

    Raises:
        ValueError: The rows have options with different names.
    """
    if not any(options):
        return None
    if any(set(each) != set(options[0]) for each in options):
        names = [sorted(each) for each in options]
        raise ValueError(f"every row needs the same options; theirs are {names}")
    return {name: [each[name] for each in options] for name in options[0]}

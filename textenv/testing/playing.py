"""Random play of any kind of environment, recorded as one transition at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from textenv.testing.making import AnyEnv, Maker, require, single_spaces

EPISODES = 8
"""Number of episodes for which a single environment is played."""


@dataclass(eq=False)
class Transition:
    """One chosen token of one episode.

    Attributes:
        row: Row of the vector; 0 in a single environment.
        number: How many tokens of the episode were chosen before.
        prompt_length: Number of ids at the start of the episode.
        before: Observation for which the token was chosen, shape (L,).
        before_info: Info that came with that observation.
        action: The chosen token.
        after: Observation after the step, shape (L,); if the episode is over, its last one in every
            autoreset mode.
        reward: Reward as it was returned.
        terminated: Flag as it was returned.
        truncated: Flag as it was returned.
        info: Info as it was returned; if the episode is over, the info of its end.
        env: The environment, after the step.
    """

    row: int
    number: int
    prompt_length: int
    before: NDArray[Any]
    before_info: Mapping[str, Any]
    action: np.int64
    after: NDArray[Any]
    reward: Any
    terminated: Any
    truncated: Any
    info: Mapping[str, Any]
    env: AnyEnv

    @property
    def over(self) -> bool:
        """Whether the episode ended here."""
        return bool(self.terminated or self.truncated)

    @property
    def where(self) -> str:
        """Row and number of the token, for messages."""
        return f"row {self.row}, chosen token {self.number} (counted from 0)"


def play(make: Maker, seed: int = 0) -> Iterator[Transition]:
    """Transitions of random play; every second episode avoids the stop tokens.

    Masked tokens are chosen now and then too. Vectors are played in every autoreset mode in which
    they can be made.

    Raises:
        RuleBroken: Observations have more than one dimension, or a vector loses an end.
    """
    env = make()
    if not isinstance(env, VectorEnv):
        return _play_single(env, seed)
    return (step for envs in make.in_every_mode() for step in _play_vector(envs, seed))


def count_tokens(observation: NDArray[Any], pad_token: int) -> int:
    """Number of ids that are not padding."""
    return int((observation != pad_token).sum())


class Chooser:
    """Chooses tokens at random.

    Args:
        env: The environment that takes the tokens.
        seed: Seed of the choices.

    Raises:
        RuleBroken: Observations have more than one dimension.
    """

    def __init__(self, env: AnyEnv, seed: int):
        actions, observations = single_spaces(env)
        check_one_dimension(observations)
        self.pad_token = int(actions.n)  # type: ignore[attr-defined]
        self._rng = np.random.default_rng(seed)
        self._is_stop = np.zeros(self.pad_token, dtype=bool)
        self._is_stop[list(getattr(env.unwrapped, "stop_tokens", ()))] = True

    def __call__(self, info: Mapping[str, Any], may_stop: bool) -> np.int64:
        """A token; one that ends the answer in one case of four, if it may."""
        fate = self._rng.random()
        candidates = ~self._is_stop
        if may_stop and fate < 0.25:
            candidates = self._is_stop
        elif fate > 0.75:  # masks are advice
            mask = np.asarray(info.get("action_mask") if isinstance(info, Mapping) else None)
            if mask.shape == candidates.shape:
                candidates = candidates & ~mask.astype(bool)
        ids = candidates.nonzero()[0]
        if len(ids) == 0:
            return self._rng.integers(self.pad_token)
        return ids[self._rng.integers(len(ids))]


def check_one_dimension(observations: gym.Space[Any]) -> None:
    """Refuse stacked frames.

    Raises:
        RuleBroken: An observation does not have exactly one dimension.
    """
    shape = observations.shape
    require(
        shape is not None and len(shape) == 1,
        f"observations have the shape {shape}, not (L,). An observation already holds the whole "
        "text so far: remove wrappers that stack or reshape it, such as FrameStackObservation",
    )


def row_info(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The entries of a vector's infos that `row` has.

    Unlike `textenv.infos.row_info` it reads the infos of other environments, which may leave out
    the masks inside a dictionary.
    """
    single: dict[str, Any] = {}
    for key, values in infos.items():
        told = infos.get(f"_{key}")
        if key.startswith("_") or (told is not None and not told[row]):
            continue
        single[key] = row_info(values, row) if isinstance(values, Mapping) else values[row]
    return single


def _play_single(env: gym.Env[Any, Any], seed: int) -> Iterator[Transition]:
    choose = Chooser(env, seed)
    for episode in range(EPISODES):
        observation, info = env.reset(seed=None if episode else seed)
        before = np.array(observation)
        prompt_length = count_tokens(before, choose.pad_token)
        for number in range(len(before)):
            action = choose(info, may_stop=episode % 2 == 1)
            before_info = info
            observation, reward, terminated, truncated, info = env.step(action)
            after = np.array(observation)
            yield Transition(
                *(0, number, prompt_length, before, before_info, action),
                *(after, reward, terminated, truncated, info, env),
            )
            if terminated or truncated:
                break
            before = after


def _play_vector(envs: VectorEnv[Any, Any, Any], seed: int) -> Iterator[Transition]:
    choose = Chooser(envs, seed)
    mode = envs.metadata.get("autoreset_mode")
    rows = range(envs.num_envs)
    observations, infos = envs.reset(seed=seed)
    texts = np.array(observations)
    row_infos = [row_info(infos, row) for row in rows]
    prompt_lengths = [count_tokens(text, choose.pad_token) for text in texts]
    numbers, episodes = [0] * envs.num_envs, list(rows)
    waiting = np.zeros(envs.num_envs, dtype=bool)  # NEXT_STEP: the next step only resets
    for _ in range(2 * texts.shape[1] + 2):
        actions = np.array([choose(row_infos[row], episodes[row] % 2 == 1) for row in rows])
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        over = (terminated | truncated) & ~waiting
        _check_step_that_resets(waiting, rewards, terminated | truncated)
        ends, end_infos = _ends(mode, over, observations, infos)
        for row in np.flatnonzero(~waiting).tolist():
            yield Transition(
                *(row, numbers[row], prompt_lengths[row], texts[row], row_infos[row]),
                *(actions[row], np.array(ends[row] if over[row] else observations[row])),
                *(rewards[row], terminated[row], truncated[row]),
                row_info(end_infos if over[row] else infos, row),
                envs,
            )
            numbers[row] += 1
        texts = np.array(observations)
        row_infos = [row_info(infos, row) for row in rows]
        started = waiting if mode is AutoresetMode.NEXT_STEP else over
        if mode is AutoresetMode.DISABLED and over.any():
            texts = _reset_rows(envs, over, texts, row_infos)
        for row in np.flatnonzero(started).tolist():
            prompt_lengths[row] = count_tokens(texts[row], choose.pad_token)
            numbers[row] = 0
            episodes[row] += 1
        if mode is AutoresetMode.NEXT_STEP:
            waiting = over


def _ends(
    mode: Any, over: NDArray[np.bool_], observations: Any, infos: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """The observations and infos that hold the ends of the episodes that are over."""
    if mode is not AutoresetMode.SAME_STEP or not over.any():
        return observations, infos
    for key in ("final_obs", "final_info"):
        require(
            key in infos,
            f"rows {np.flatnonzero(over).tolist()} ended, but infos has no {key!r}. In SAME_STEP "
            "mode they hold the end of an episode, since the observation is the next start",
        )
        told = np.asarray(infos.get(f"_{key}"))
        require(
            np.array_equal(told, over),
            f"infos['_{key}'] is {told.tolist()} where the flags say {over.tolist()}: it must be "
            "True for the rows that ended",
        )
    return infos["final_obs"], infos["final_info"]


def _check_step_that_resets(waiting: Any, rewards: Any, over: Any) -> None:
    for row in np.flatnonzero(waiting).tolist():
        require(
            rewards[row] == 0 and not over[row],
            f"row {row} was only reset in this step, which returned the reward {rewards[row]} and "
            f"an end: {over[row]}. In NEXT_STEP mode that step belongs to no episode: pay 0 there",
        )


def _reset_rows(
    envs: VectorEnv[Any, Any, Any],
    over: NDArray[np.bool_],
    texts: NDArray[Any],
    row_infos: list[dict[str, Any]],
) -> NDArray[Any]:
    """Reset the rows that are over; returns the observations after the reset."""
    observations, infos = envs.reset(options={"reset_mask": over.copy()})
    after = np.array(observations)
    require(
        np.array_equal(after[~over], texts[~over]),
        f"reset(options={{'reset_mask': {over.tolist()}}}) changed the text of another row: leave "
        "the rows where the mask is False as they are",
    )
    for row in np.flatnonzero(over).tolist():
        row_infos[row] = row_info(infos, row)
    return after

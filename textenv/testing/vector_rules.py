"""Rules for vector environments only."""

from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from textenv.testing.making import Maker, require
from textenv.testing.playing import Chooser, count_tokens, play, row_info
from textenv.testing.rules import without_clock


def spaces_are_batched(make: Maker) -> None:
    """The spaces of the vector are those of `num_envs` rows."""
    envs = make()
    for name in ("action_space", "observation_space"):
        batched = batch_space(getattr(envs, f"single_{name}"), envs.num_envs)
        require(
            getattr(envs, name) == batched,
            f"{name} is {getattr(envs, name)}, that of {envs.num_envs} rows {batched}. Use "
            "gymnasium.vector.utils.batch_space(single_space, num_envs)",
        )


def the_autoreset_mode_is_declared(make: Maker) -> None:
    """`metadata["autoreset_mode"]` is an AutoresetMode, the one that was asked for."""
    modes = list(AutoresetMode)
    asked = [[mode] for mode in modes] if make.takes("autoreset_mode") else [modes]
    for envs, allowed in zip(make.in_every_mode(), asked, strict=True):
        declared = envs.metadata.get("autoreset_mode")
        require(
            isinstance(declared, AutoresetMode) and declared in allowed,
            f"metadata['autoreset_mode'] is {declared!r}, not {' or '.join(map(str, allowed))}: "
            "learners read there where they find the end of an episode",
        )


def steps_return_arrays(make: Maker) -> None:
    """Observations (n, L) int64, rewards (n,) of floats, flags (n,) bool, infos a dict."""
    for envs in make.in_every_mode():
        choose = Chooser(envs, seed=0)
        envs.reset(seed=0)
        n = envs.num_envs
        actions = np.array([choose({}, may_stop=False) for _ in range(n)])
        observations, rewards, *flags, infos = envs.step(actions)
        shape = envs.observation_space.shape
        for name, array, right, kinds in (
            ("observations", observations, shape, "i"),
            ("rewards", rewards, (n,), "f"),
            ("terminated", flags[0], (n,), "b"),
            ("truncated", flags[1], (n,), "b"),
        ):
            require(
                isinstance(array, np.ndarray)
                and array.shape == right
                and array.dtype.kind in kinds,
                f"{name} of a step are {array!r}. They must be an array of shape {right} and of "
                f"dtype {dict(i='int64', f='float64', b='bool')[kinds]}",
            )
        require(isinstance(infos, dict), f"infos of a step are {infos!r}, not a dict")


def ends_are_kept(make: Maker) -> None:
    """The last observation and info of an episode come back in every autoreset mode.

    In SAME_STEP mode they are in `final_obs` and `final_info`. In NEXT_STEP mode the step after
    that pays nothing. In DISABLED mode a reset with a mask leaves the other rows alone.
    """
    vocab_size = int(make().single_action_space.n)
    for step in play(make):
        if not step.over:
            continue
        before, after = (count_tokens(text, vocab_size) for text in (step.before, step.after))
        require(
            after == before + 1,
            f"{step.where}: the episode ended with {before + 1} ids, but the observation of the "
            f"end has {after}. Copy the text before the row is restarted",
        )
        require(
            "finish_reason" in step.info or not step.terminated,
            f"{step.where}: the info of the end is {step.info}, without a finish_reason. In "
            "SAME_STEP mode it belongs in infos['final_info'], in the others in infos",
        )


def rows_equal_environments_of_their_own(make: Maker) -> None:
    """Row i with the seed s is what a vector of one row is with the seed s + i."""
    envs = make()
    group_size = getattr(envs.unwrapped, "group_size", 1)
    one_row = {"num_envs": 1} | ({"group_size": 1} if group_size > 1 else {})
    alone = [make(**one_row) for _ in range(envs.num_envs)]
    choose = Chooser(envs, seed=0)
    results = envs.reset(seed=5)
    others = [env.reset(seed=5 + row - row % group_size) for row, env in enumerate(alone)]
    for number in range(2 * envs.single_observation_space.shape[0]):
        # The others of a group have random numbers of their own.
        for row in range(0, len(others), group_size):
            _compare(number, row, results, others[row])
        infos = results[-1]
        actions = [choose(row_info(infos, row), row % 2 == 1) for row in range(len(alone))]
        if (envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED) and number:
            over = results[2] | results[3]
            if over.any():
                return  # without resets, both go no further than the first end of an episode
        results = envs.step(np.array(actions))
        others = [env.step(np.array([a])) for env, a in zip(alone, actions, strict=True)]
        if group_size > 1 and (results[2] | results[3]).any():
            return  # in a group, the next prompt goes to the row that starts first


def _compare(number: int, row: int, results: Any, alone: Any) -> None:
    """Compare one row of a vector's result with the result of a vector of one row."""
    names = ["observation", "reward", "terminated", "truncated"][: len(results) - 1]
    pairs = [(name, results[i][row], alone[i][0]) for i, name in enumerate(names)]
    infos = [without_clock(row_info(i, r)) for i, r in ((results[-1], row), (alone[-1], 0))]
    for info in infos:  # numbered across the rows
        for inner in (info, info.get("final_info", {})):
            inner.pop("group", None)
    for name, one, other in [*pairs, ("info", *infos)]:
        require(
            data_equivalence(one, other),
            f"row {row}, after {number} steps: {name} is {one!r}, that of a vector with this row "
            f"alone {other!r}. Nothing in a row may depend on the others",
        )

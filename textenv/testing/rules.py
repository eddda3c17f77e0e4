"""Rules about spaces, seeds, masks and the rest, for a single environment and a vector alike."""

import contextlib
import io
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any
from unittest import SkipTest

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from textenv.testing.making import AnyEnv, Maker, RuleBroken, require, single_spaces
from textenv.testing.playing import Transition, check_one_dimension, play
from textenv.tokenizers import unused_tokens_of


def actions_are_tokens(make: Maker) -> None:
    """The action space is Discrete(V), starting at 0."""
    actions, _ = single_spaces(make())
    require(
        isinstance(actions, spaces.Discrete) and actions.start == 0,
        f"the action space is {actions}. It must be Discrete(V), V being the size of the "
        "vocabulary: Stable-Baselines3 knows no other start than 0",
    )


def observations_are_token_ids(make: Maker) -> None:
    """The observation space is Box(0, V, (L,), int64); V is the padding."""
    actions, observations = single_spaces(make())
    check_one_dimension(observations)
    vocab_size = actions.n  # type: ignore[attr-defined]
    require(
        isinstance(observations, spaces.Box)
        and observations.dtype == np.int64
        and (observations.low == 0).all()
        and (observations.high == vocab_size).all(),
        f"the observation space is {observations}. It must be Box(0, {vocab_size}, (L,), int64): "
        f"token ids and the padding {vocab_size}",
    )


def equal_seeds_repeat_episodes(make: Maker) -> None:
    """Equal seeds and actions give equal observations, rewards, flags and infos."""
    first = [_record(step) for step in play(make)]
    for one, step in zip_longest(first, play(make)):
        require(one and step, "an episode was longer at one time than at the other")
        for name, value in _record(step).items():
            if one[name] != value:
                raise RuleBroken(
                    f"{step.where}: with the same seed and actions {name} was another, the second "
                    f"time {getattr(step, name)}. Draw all randomness from the seed of reset"
                )


def _record(step: Transition) -> dict[str, Any]:
    """The step's results, short enough to keep many of them."""
    texts = {name: hash(getattr(step, name).tobytes()) for name in ("before", "after")}
    infos = {name: repr(without_clock(getattr(step, name))) for name in ("before_info", "info")}
    names = ("reward", "terminated", "truncated")
    return texts | infos | {name: getattr(step, name) for name in names}


def seeds_choose_the_prompts(make: Maker) -> None:
    """Where there are several prompts, seeds (and the rows of a vector) draw different ones."""
    env = make()
    streams = [_starts(env, seed) for seed in (0, 10_000)]
    starts = {start for rows in streams for row in rows for start in row}
    if len(starts) == 1:
        raise SkipTest("one prompt only")
    for row, pair in enumerate(zip(*streams, strict=True)):
        require(
            pair[0] != pair[1],
            f"row {row} began the same {len(pair[0])} episodes for the seeds 0 and 10000, though "
            f"{len(starts)} prompts were seen. Seed the draw of prompts in reset, and only when a "
            "seed is given; processes that share the work would all learn from the same prompts",
        )
    leaders = streams[0][:: getattr(env.unwrapped, "group_size", 1)]
    require(
        len(set(leaders)) == len(leaders),
        f"{len(leaders)} rows (one of each group) began only {len(set(leaders))} different "
        f"series of {len(leaders[0])} episodes. Row i must draw from the stream of seed + i",
    )


def _starts(env: AnyEnv, seed: int) -> list[tuple[bytes, ...]]:
    """The first observations of 32 episodes that follow a seed, row by row."""
    resets = [env.reset(seed=None if number else seed)[0] for number in range(32)]
    rows = zip(*[np.atleast_2d(texts) for texts in resets], strict=True)
    return [tuple(text.tobytes() for text in row) for row in rows]


def action_masks_are_consistent(make: Maker) -> None:
    """Masks come with every reset and step, or never; a token is left; the method agrees."""
    env = make()
    _, info = env.reset(seed=0)
    told = "action_mask" in info
    shape = (int(single_spaces(env)[0].n),)  # type: ignore[attr-defined]
    if hasattr(env.unwrapped, "action_masks"):
        masks = np.asarray(env.unwrapped.action_masks())
        shown = np.asarray(info["action_mask"]) if told else np.ones_like(masks)
        # Ids that stand for no token may be ruled out by the method alone.
        unused = list(unused_tokens_of(getattr(env.unwrapped, "tokenizer", None)))
        require(
            np.array_equal(np.delete(masks, unused, -1), np.delete(shown, unused, -1)),
            f"action_masks() rules out {(~masks).sum()} tokens after reset(seed=0) and "
            f"info['action_mask'] {(~shown).sum()}: they must be equal",
        )
    for step in play(make):
        infos = [step.before_info] if step.over else [step.before_info, step.info]
        for number, one in enumerate(infos):
            require(
                ("action_mask" in one) == told,
                f"{step.where}: {'after' if number else 'before'} it info has "
                f"{'no' if told else 'an'} 'action_mask', unlike after the first reset. Give it "
                "after every reset and step, or never",
            )
            mask = np.asarray(one.get("action_mask", np.ones(shape, dtype=bool)))
            require(
                mask.shape == shape and mask.dtype == bool and mask.any(),
                f"{step.where}: info['action_mask'] has shape {mask.shape}, dtype {mask.dtype} and "
                f"{np.count_nonzero(mask)} allowed tokens. It must be boolean, of shape {shape}, "
                "and allow one token or more",
            )


def render_modes_work(make: Maker) -> None:
    """Every declared render mode renders; "ansi" gives a string, or one for each row."""
    env = make()
    modes = env.metadata.get("render_modes", [])
    require(
        env.render_mode in (None, *modes),
        f"render_mode is {env.render_mode!r}, metadata['render_modes'] {modes}: declare it there",
    )
    if not make.takes("render_mode"):
        modes = [mode for mode in (env.render_mode,) if mode is not None]
        if not modes:
            raise SkipTest("it has no render mode and cannot be made with render_mode=...")
    for mode in modes:
        rendering = make(render_mode=mode) if make.takes("render_mode") else env
        require(
            rendering.render_mode == mode,
            f"render_mode is {rendering.render_mode!r} in what was made with render_mode={mode!r}: "
            "pass the argument on",
        )
        with contextlib.redirect_stdout(io.StringIO()):
            rendering.reset(seed=0)
            _check_rendered(rendering, mode)
            rendering.step(rendering.action_space.sample())
            _check_rendered(rendering, mode)


def _check_rendered(env: AnyEnv, mode: str) -> None:
    try:
        rendered = env.render()
    except Exception as error:
        raise RuleBroken(
            f"render() in mode {mode!r} raised {type(error).__name__}: {error}. Remove the mode "
            "from metadata['render_modes'], or make it work right after reset"
        ) from error
    if mode != "ansi":
        return
    texts = rendered if isinstance(env, VectorEnv) else (rendered,)
    require(
        isinstance(texts, tuple | list)
        and len(texts) == getattr(env, "num_envs", 1)
        and all(isinstance(text, str) for text in texts),
        f"render() in mode 'ansi' returned {rendered!r}. Return a str, or one for each row",
    )


def no_compute_reward(make: Maker) -> None:
    """Nothing is called compute_reward."""
    env = make()
    layers = [env]
    while hasattr(layers[-1], "env"):
        layers.append(layers[-1].env)
    named = [type(layer).__name__ for layer in layers if "compute_reward" in dir(layer)]
    require(
        not named,
        f"{' and '.join(named)} has a compute_reward. Call it something else: Stable-Baselines3 "
        "takes an environment with that name for one of goals",
    )


def the_spec_goes_through_json(make: Maker) -> None:
    """A spec whose arguments are plain values can be written as JSON and read again."""
    spec = make().spec
    if spec is None or not _is_plain(spec.kwargs):
        raise SkipTest("it has no spec, or one with live objects in it")
    try:
        text = spec.to_json()
        again = EnvSpec.from_json(text).to_json()
    except Exception as error:
        raise RuleBroken(
            f"spec.to_json() raised {type(error).__name__}: {error}. Register the environment with "
            "strings, entry_point='package.module:Class'"
        ) from error
    require(again == text, f"the spec {text} read from JSON and written again is {again}")


def closing_twice_is_fine(make: Maker) -> None:
    """The environment can be closed, and closed again. It is closed from here on."""
    env = make()
    for time in ("first", "second"):
        try:
            env.close()
        except Exception as error:
            raise RuleBroken(
                f"the {time} close() raised {type(error).__name__}: {error}. Let it do nothing "
                "when there is nothing left to close"
            ) from error


def without_clock(value: Any) -> Any:
    """An info without the seconds that RecordEpisodeStatistics puts into it."""
    if not isinstance(value, Mapping) or "episode" not in value:
        return value
    return {**value, "episode": {k: v for k, v in value["episode"].items() if k != "t"}}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | None)

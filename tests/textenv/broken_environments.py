"""Single environments, each of which breaks one rule of `textenv.testing`."""

import functools
import itertools
import random

import gymnasium as gym
import numpy as np
from environments import share_of_vowels, single
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import (
    DtypeObservation,
    FrameStackObservation,
    NormalizeReward,
    TimeLimit,
)

from textenv import Reply, TextEnv, TextVectorEnv, World
from textenv.infos import row_info

ARGUMENTS = {"prompts": ["abc", "d", "ef"], "reward": share_of_vowels, "max_new_tokens": 4}
good = functools.partial(single, **ARGUMENTS)


class Changed(gym.Wrapper):
    """An environment whose results are changed by functions, in place."""

    def __init__(self, env, on_step=None, on_reset=None):
        super().__init__(env)
        self.on_step, self.on_reset = on_step, on_reset

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        if self.on_reset:
            self.on_reset(observation, info)
        return observation, info

    def step(self, action):
        result = list(self.env.step(action))
        if self.on_step:
            self.on_step(result)
        return tuple(result)


def changed(on_step=None, on_reset=None, **arguments):
    return lambda **kwargs: Changed(good(**{**arguments, **kwargs}), on_step, on_reset)


class Echo(World):
    """Says what it was told."""

    def reply(self, turn, rng):
        return Reply(f"<{turn.text}>")


def talking(on_step):
    """A conversation whose steps are changed."""
    arguments = {"prompts": ["abc", "d"], "world": Echo, "max_new_tokens": 12}
    return lambda **kwargs: Changed(TextEnv(**arguments, **kwargs), on_step)


def without_reply_tokens(**told):
    """A change of the info in which a reply is told."""

    def change(result):
        if result[4].pop("reply_tokens", None) is not None:
            result[4].update(told)

    return change


def appending_others(**kwargs):
    """A conversation whose replies are appended, and told, as other ids than their own."""
    env = TextEnv(prompts=["abc", "d"], world=Echo, max_new_tokens=12, **kwargs)
    env._vector._conversations._ids_of = lambda reply, stopped: [65] * len(reply.text)
    return env


def attributes(make, **values):
    """What `make` makes, with attributes set."""

    def make_with_them(**kwargs):
        env = make(**kwargs)
        for name, value in values.items():
            setattr(env, name, value)
        return env

    return make_with_them


def set_item(index, value, when=lambda result: True):
    """A change of the results of a step; `value` may be a function of them."""

    def on_step(result):
        if when(result):
            result[index] = value(result) if callable(value) else value

    return on_step


def set_info(key, value, when=lambda result: True):
    def on_step(result):
        if when(result):
            result[4][key] = value(result) if callable(value) else value

    return on_step


def is_over(result):
    return result[2] or result[3]


def is_stop(result):
    return result[4].get("finish_reason") == "stop"


def is_length(result):
    return result[4].get("finish_reason") == "length"


def left_padded(observation, info=None):
    count = (observation != 257).sum()
    observation[:] = np.roll(observation, len(observation) - count)


def forge_a_stop_token(result):
    """As some trainers do when the budget ends an answer."""
    if is_length(result):
        result[0][(result[0] != 257).sum() - 1] = 256


def truncate_at_a_late_stop(result):
    if is_stop(result) and result[4]["text"]:
        result[2:4] = [False, True]


class Retokenised(TextEnv):
    """Keeps the text and encodes it again at every step."""

    def step(self, action):
        observation, *result = super().step(action)
        ids = self.tokenizer.encode(self.tokenizer.decode(observation[observation != 257].tolist()))
        again = np.full_like(observation, 257)
        again[: len(ids)] = ids[: len(again)]
        return again, *result


class Strict(TextEnv):
    """Refuses tokens that are masked."""

    def step(self, action):
        if not self.action_masks()[action]:
            raise ValueError(f"{action} is masked")
        return super().step(action)


class OneBuffer(TextEnv):
    """Returns the same array every time."""

    buffer = None

    def _kept(self, observation):
        if self.buffer is None:
            self.buffer = observation
        self.buffer[:] = observation
        return self.buffer

    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return self._kept(observation), info

    def step(self, action):
        observation, *result = super().step(action)
        return self._kept(observation), *result


class PaddedBudget(TextVectorEnv):
    """The budget ends an episode where the observation does, as if all prompts were longest."""

    def _begin(self, rows, starts):
        super()._begin(rows, starts)
        texts = self._texts
        texts._halts[rows] = texts._limits[rows] = texts._origins[rows] + texts.tokens.shape[1]


def padded_budget(**kwargs):
    env = good(**kwargs)
    env._vector = PaddedBudget(1, **ARGUMENTS, autoreset_mode=AutoresetMode.DISABLED)
    return env


class Unseeded(TextEnv):
    def reset(self, *, seed=None, options=None):
        observations, infos = self._vector.reset(seed=seed, options=options)
        return observations[0], row_info(infos, 0)


class OneSeed(TextEnv):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=None if seed is None else 0, options=options)
        gym.Env.reset(self, seed=seed)
        return observation, info


class OtherMasks(TextEnv):
    def action_masks(self):
        return np.arange(257) > 3


class Silent(TextEnv):
    def render(self):
        return None


class Camera(TextEnv):
    metadata = {**TextEnv.metadata, "render_modes": ["ansi", "rgb_array"]}  # noqa: RUF012

    def render(self):
        if self.render_mode == "rgb_array":
            raise NotImplementedError("no camera")
        return super().render()


class Goal(TextEnv):
    def compute_reward(self):
        return 0.0


class Seed(TextEnv):
    def seed(self, seed=None):
        """Gymnasium warns about this name."""


class Stuck:
    """Equal to its like, but cannot be copied, as SB3 copies infos."""

    def __eq__(self, other):
        return isinstance(other, Stuck)

    __hash__ = None

    def __repr__(self):
        return "Stuck"

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


class ClosesOnce(TextEnv):
    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


def with_spec(make):
    return attributes(make, spec=EnvSpec(id="Mine-v0", entry_point=TextEnv, kwargs={"a": 1}))


def broken(cls, **more):
    return lambda **kwargs: cls(**{**ARGUMENTS, **more, **kwargs})


MASKED = {"min_new_tokens": 2}
RAISES = (lambda episodes: [1 / 0], "random play raised RewardRaisedError.*division")
NUMBERS = itertools.count()


def numbered_prompt(rng):
    """Not of the seed, but of what went before."""
    return str(next(NUMBERS) % 10)


# For every rule: environments that break it, and what the message must say.
STEP_BREAKERS = {
    "actions_are_tokens": [
        (attributes(good, action_space=spaces.Discrete(257, start=1)), r"Discrete\(257, start=1\)"),
        (attributes(good, action_space=spaces.MultiDiscrete([257])), r"must be Discrete\(V\)"),
    ],
    "observations_are_token_ids": [
        (
            lambda **kwargs: FrameStackObservation(good(**kwargs), 2),
            r"\(2, 7\), not \(L,\).*already holds the whole text.*FrameStackObservation",
        ),
        (lambda **kwargs: DtypeObservation(good(**kwargs), np.float32), "float32.*int64"),
        (
            attributes(good, observation_space=spaces.Box(0, 256, (7,), np.int64)),
            r"Box\(0, 256.*must be Box\(0, 257",
        ),
    ],
    "random_actions_never_raise": [
        (broken(Strict, **MASKED), "raised ValueError: 256 is masked.*advice"),
        (functools.partial(good, reward=RAISES[0]), RAISES[1]),
    ],
    "observations_are_right_padded": [
        (changed(lambda result: left_padded(result[0]), left_padded), "then nothing but 257"),
        (changed(set_item(0, lambda r: r[0].astype(np.int32))), "int32"),
    ],
    "steps_append_the_chosen_token": [
        (changed(forge_a_stop_token), r"hold \[256\].*no stop token"),
        (broken(Retokenised), "do not encode the text again"),
        (changed(set_item(0, lambda r: r[0] * 0 + 5)), r"\[5, 5"),
    ],
    "replies_are_told": [
        (talking(lambda r: r[4].pop("reply", None)), "reply that is told, None, has 0"),
        (talking(without_reply_tokens(reply="so")), "'so', has 2"),
        (talking(without_reply_tokens(reply_tokens=[5])), "has 1"),
        (appending_others, r"appended as \[65, 65.*and \[60, "),
    ],
    "the_first_step_does_not_truncate": [
        (lambda **kwargs: TimeLimit(good(**kwargs), 1), "chosen token 0.*truncated"),
        (functools.partial(good, max_new_tokens=1, budget="truncate"), "Allow two tokens"),
    ],
    "one_flag_ends_an_episode": [
        (lambda **kwargs: TimeLimit(good(**kwargs), 4), "TimeLimit must be below"),
    ],
    "the_budget_counts_chosen_tokens": [
        (padded_budget, "4 tokens were chosen of max_new_tokens=4.*did not end the episode"),
        (attributes(good, max_new_tokens=5), "4 tokens were chosen of max_new_tokens=5.* ended"),
    ],
    "finish_reason_tells_the_end": [
        (changed(set_info("finish_reason", "length", is_stop)), "is 'length' with terminated=True"),
        (changed(set_info("finish_reason", "stop", is_length)), "is 'stop' with terminated=True"),
        (changed(set_info("finish_reason", None, is_over)), "is None with terminated=True"),
        (changed(set_info("finish_reason", "stop", lambda r: not is_over(r))), "terminated=False"),
        (
            changed(truncate_at_a_late_stop),
            "is 'stop' with terminated=False and truncated=True",
        ),
    ],
    "text_is_the_answer": [
        (changed(set_info("text", lambda r: "abc" + r[4]["text"], is_over)), "the chosen ids are"),
    ],
    "values_are_finite": [
        (changed(set_item(1, float("nan"), is_over)), "the reward is nan"),
        (changed(set_item(1, float("-inf"), is_over)), "the reward is -inf"),
        (changed(set_info("more", {"deep": [0.0, np.nan]})), r"info\['more'\]\['deep'\]\[1\] is N"),
        (changed(None, lambda o, info: info.update(x=np.array([np.nan]))), r"info\['x'\] is NaN"),
    ],
    "equal_seeds_repeat_episodes": [
        (changed(set_item(1, lambda result: random.random())), "reward was another"),
        (changed(set_info("number", lambda result: next(NUMBERS))), "info was another.*seed"),
        (functools.partial(good, prompts=numbered_prompt, max_prompt_tokens=1), "before was ano"),
    ],
    "seeds_choose_the_prompts": [(broken(OneSeed), "the same 32 episodes for the seeds 0 and 1")],
    "action_masks_are_consistent": [
        (changed(lambda r: r[4].pop("action_mask"), **MASKED), "after it info has no 'action_mask"),
        (
            changed(
                set_info("action_mask", np.zeros(257, bool), lambda r: not is_over(r)), **MASKED
            ),
            "0 allowed tokens",
        ),
        (
            changed(set_info("action_mask", np.ones(9, bool), lambda r: not is_over(r)), **MASKED),
            r"shape \(9,\)",
        ),
    ],
    "render_modes_work": [
        (broken(Silent), "returned .*None.*Return a str"),
        (broken(Camera), "'rgb_array' raised NotImplementedError: no camera"),
    ],
}
BREAKERS = {
    **STEP_BREAKERS,
    "action_masks_are_consistent": [
        *STEP_BREAKERS["action_masks_are_consistent"],
        (broken(OtherMasks), r"action_masks\(\) rules out 4 tokens.*'action_mask'\] 0"),
    ],
    "render_modes_work": [
        *STEP_BREAKERS["render_modes_work"],
        (lambda render_mode=None: good(), "render_mode is None in what was made with"),
        (attributes(good, render_mode="film"), "declare it there"),
    ],
    "steps_return_python_types": [
        (changed(set_item(1, lambda r: np.float64(r[1]))), "'float64', 'bool', 'bool'"),
        (changed(set_item(2, lambda r: np.bool_(r[2]))), r"Return float\(reward\)"),
        (changed(set_item(3, lambda r: int(r[3]))), "'int'"),
        (changed(set_item(4, [])), "info a list"),
        (lambda **kwargs: NormalizeReward(good(**kwargs)), "'float64'"),
    ],
    "no_two_calls_share_an_observation": [(broken(OneBuffer), "Return a copy")],
    "no_compute_reward": [
        (broken(Goal), "Goal has a compute_reward.*Call it something else"),
        (attributes(changed(), compute_reward=len), "Changed has a compute_reward"),
    ],
    "the_spec_goes_through_json": [(with_spec(good), "Register the environment with strings")],
    "reset_seeds_np_random": [(broken(Unseeded), r"super\(\).reset\(seed=seed\)")],
    "gymnasium_agrees": [(broken(Seed), "check_env says .*`seed` function is dropped")],
    "stable_baselines3_agrees": [
        (changed(set_info("stuck", lambda r: Stuck())), "stable_baselines3.*cannot be copied")
    ],
    "closing_twice_is_fine": [
        (broken(ClosesOnce), r"the second close\(\) raised RuntimeError: closed already"),
    ],
}

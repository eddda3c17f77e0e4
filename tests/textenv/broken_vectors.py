"""Vector environments, each of which breaks one rule of `textenv.testing`."""

import functools

import numpy as np
from broken_environments import (
    ARGUMENTS,
    MASKED,
    STEP_BREAKERS,
    OneSeed,
    attributes,
    broken,
    changed,
    forge_a_stop_token,
    left_padded,
    set_item,
    with_spec,
)
from environments import vector
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from textenv import TextVectorEnv

good_vector = functools.partial(vector, num_envs=3, **ARGUMENTS)


class Rows(SyncVectorEnv):
    """Gymnasium's vector of our environments, with what rules ask of a vector."""

    def __init__(self, make, autoreset_mode=AutoresetMode.SAME_STEP, render_mode=None):
        makers = [lambda: make(render_mode=render_mode)] * 3
        super().__init__(makers, autoreset_mode=autoreset_mode)
        first = self.envs[0].unwrapped
        self.stop_tokens, self.max_new_tokens = first.stop_tokens, first.max_new_tokens
        self.tokenizer = first.tokenizer


def rows(make):
    """A maker of such vectors, in one autoreset mode only: it takes no argument for others."""
    return lambda render_mode=None: Rows(make, render_mode=render_mode)


class ChangedVector(VectorWrapper):
    """A vector whose results are changed by functions, in place."""

    def __init__(self, envs, on_step=None, on_reset=None):
        super().__init__(envs)
        self.on_step, self.on_reset = on_step, on_reset

    def reset(self, **kwargs):
        if self.on_reset:
            self.on_reset(kwargs)
        return self.env.reset(**kwargs)

    def step(self, actions):
        result = list(self.env.step(actions))
        if self.on_step:
            self.on_step(result)
        return tuple(result)


def changed_vector(on_step=None, on_reset=None, **arguments):
    return lambda **kwargs: ChangedVector(good_vector(**{**arguments, **kwargs}), on_step, on_reset)


def in_final_info(key):
    def drop(result):
        result[4].get("final_info", {}).pop(key, None)

    return drop


def new_start_as_the_end(result):
    for row in np.flatnonzero(result[4].get("_final_obs", [])):
        result[4]["final_obs"][row] = result[0][row]


class PaysForResets(TextVectorEnv):
    def step(self, actions):
        observations, rewards, *result = super().step(actions)
        return observations, rewards + 1.0, *result


class OneBufferVector(TextVectorEnv):
    def reset(self, **kwargs):
        _, infos = super().reset(**kwargs)
        return self._texts.tokens, infos


class StrictVector(TextVectorEnv):
    def step(self, actions):
        masks = self.action_masks()
        if not masks[np.arange(self.num_envs), actions].all():
            raise ValueError("masked")
        return super().step(actions)


class OneStringVector(TextVectorEnv):
    def render(self):
        return self.row_text(0)


class GoalVector(TextVectorEnv):
    def compute_reward(self):
        return 0.0


class ClosesOnceVector(TextVectorEnv):
    is_closed = False

    def close(self, **kwargs):
        if self.is_closed:
            raise RuntimeError("closed already")
        self.is_closed = True


def same_stream(kwargs):
    if kwargs.get("seed") is not None:
        kwargs["seed"] = [kwargs["seed"]] * 3


def reset_all(kwargs):
    kwargs["options"] = None


def broken_vector(cls, **more):
    return lambda **kwargs: cls(**{"num_envs": 3, **ARGUMENTS, **more, **kwargs})


def paying_for_resets(**kwargs):
    """In NEXT_STEP mode alone, where it is wrong."""
    is_wrong = kwargs.get("autoreset_mode") is AutoresetMode.NEXT_STEP
    return (PaysForResets if is_wrong else TextVectorEnv)(**{"num_envs": 3, **ARGUMENTS, **kwargs})


def with_vector_spec(**kwargs):
    return with_spec(good_vector)(**kwargs)


VECTOR_BREAKERS = {
    # Gymnasium's vector of broken environments is broken in the same way.
    **{
        rule: [(rows(make), message) for make, message in cases[:2]]
        for rule, cases in STEP_BREAKERS.items()
    },
    # What Gymnasium's vector refuses or mends itself is left out.
    "steps_append_the_chosen_token": [(rows(changed(forge_a_stop_token)), "no stop token")],
    "action_masks_are_consistent": [
        (rows(changed(lambda r: r[4].pop("action_mask"), **MASKED)), "info has no 'action_mask"),
    ],
    "observations_are_right_padded": [
        (rows(changed(lambda result: left_padded(result[0]), left_padded)), "nothing but 257"),
    ],
    "spaces_are_batched": [
        (attributes(good_vector, action_space=spaces.Discrete(257)), "action_space is Discrete"),
    ],
    "the_autoreset_mode_is_declared": [
        (lambda autoreset_mode=None: good_vector(), "SAME_STEP.* not AutoresetMode.NEXT_STEP"),
        (lambda: attributes(good_vector, metadata={})(), "is None, not AutoresetMode.NEXT_STEP or"),
    ],
    "random_actions_never_raise": [(broken_vector(StrictVector, **MASKED), "masked.*advice")],
    "steps_return_arrays": [
        (changed_vector(set_item(1, lambda r: r[1].tolist())), r"rewards of a step are \[0.0"),
        (changed_vector(set_item(0, lambda r: r[0][:, :2])), r"shape \(3, 7\).*int64"),
        (changed_vector(set_item(2, lambda r: r[2].astype(int))), "terminated.*dtype bool"),
        (changed_vector(set_item(4, ())), "not a dict"),
    ],
    "ends_are_kept": [
        (changed_vector(lambda r: r[4].pop("final_obs", None)), "infos has no 'final_obs'"),
        (changed_vector(lambda r: r[4].pop("final_info", None)), "infos has no 'final_info'"),
        (
            changed_vector(lambda r: r[4].pop("_final_obs", None)),
            "must be True for the rows that ended",
        ),
        (changed_vector(new_start_as_the_end), "Copy the text before the row is restarted"),
        (changed_vector(in_final_info("finish_reason")), "without a finish_reason"),
        (paying_for_resets, "belongs to no episode: pay 0"),
        (changed_vector(None, reset_all), "changed the text of another row"),
    ],
    "no_two_calls_share_an_observation": [(broken_vector(OneBufferVector), "Return a copy")],
    "seeds_choose_the_prompts": [
        (changed_vector(None, same_stream), r"3 rows .* began only 1 different.*seed \+ i"),
        (rows(broken(OneSeed)), "row 0 began the same 32 episodes"),
    ],
    "render_modes_work": [(broken_vector(OneStringVector), "one for each row")],
    "no_compute_reward": [(broken_vector(GoalVector), "GoalVector has a compute_reward")],
    "the_spec_goes_through_json": [(with_vector_spec, "Register the environment with strings")],
    "rows_equal_environments_of_their_own": [
        (functools.partial(good_vector, reward=lambda es: [len(es)] * len(es)), "on the others"),
    ],
    "closing_twice_is_fine": [(broken_vector(ClosesOnceVector), r"the second close\(\)")],
}

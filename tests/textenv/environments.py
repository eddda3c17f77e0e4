"""What the tests of the environment share: rewards, prompts, and a comparison of infos."""

import numpy as np

from textenv import Prompt, TextEnv, TextVectorEnv
from textenv.rewards import dense, per_text, weighted


def share_of_vowels(episodes):
    return [sum(c in "aeiou" for c in e.text) / max(len(e.text), 1) for e in episodes]


def nothing(episodes):
    return [0.0] * len(episodes)


def number_of_a(episodes):
    return [float(e.text.count("a")) for e in episodes]


def place_of_the_action(batch):
    """Dense: depends on the token, on where it stands and on whether it is the last."""
    return batch.actions * 0.5 + batch.lengths - 2.0 * batch.prompt_lengths + 10 * batch.ended


def columns_and_ids(episodes):
    """Depends on all that an episode holds."""
    return [
        e.columns.get("weight", 1) * (e.tokens.sum() + 3 * e.prompt_tokens.sum())
        + len(e.prompt)
        + 100 * (e.finish_reason == "stop")
        for e in episodes
    ]


REWARDS = {
    "episode": columns_and_ids,
    "text": per_text(lambda text: float(len(text))),
    "dense": dense(place_of_the_action),
    "both": weighted(
        ids=(0.25, columns_and_ids), place=(-2.0, dense(place_of_the_action)), seen=(0, nothing)
    ),
}


class Numbered:
    """Prompts "0>", "1>", ... in the order in which they are asked for, whatever the seeds."""

    def __init__(self):
        self.count = 0

    def draw(self, seeds):
        first, self.count = self.count, self.count + len(seeds)
        return [Prompt(f"{number}>") for number in range(first, self.count)]


def single(**arguments) -> TextEnv:
    return TextEnv(**{"prompts": ["x>"], "reward": nothing, "max_new_tokens": 4, **arguments})


def vector(num_envs=2, **arguments) -> TextVectorEnv:
    defaults = {"prompts": ["x>"], "reward": nothing, "max_new_tokens": 4}
    return TextVectorEnv(num_envs, **{**defaults, **arguments})


def text(env, observation) -> str:
    """An observation as text, without its padding."""
    return env.tokenizer.decode(observation[observation != env.pad_token].tolist())


def assert_same(one, other, where="info"):
    """Equal in values, keys, types and dtypes, through all levels."""
    assert type(one) is type(other), f"{where}: {type(one)} and {type(other)}"
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape, where
        if one.dtype == object:
            for i, pair in enumerate(zip(one, other, strict=True)):
                assert_same(*pair, f"{where}[{i}]")
        else:
            np.testing.assert_array_equal(one, other, err_msg=where)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert one == other, f"{where}: {one!r} and {other!r}"

"""The task of every driver: to write letters in which vowels and consonants take turns.

A token is one of sixteen letters. A uniformly random answer scores 0.375. A perfect
one scores 1, which needs a policy that reads the letter before. Nothing here depends on the library
that trains.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

import textenv

LETTERS = "abcdefghijklmnop"
VOWELS = set("aeio")
RANDOM_RETURN = 0.375  # a random letter is of another kind than the one before: 2 * 4/16 * 12/16


class Letters:
    """Token i is the i-th of sixteen letters; there is no stop token."""

    name = "letters"
    vocab_size = len(LETTERS)
    stop_token = None
    fingerprint = LETTERS

    def encode(self, text: str) -> list[int]:
        """Ids of `text`."""
        return [LETTERS.index(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""
        return "".join(LETTERS[i] for i in ids)


def turns(episodes: Sequence[textenv.Episode]) -> list[float]:
    """Share of the answer's letters whose kind differs from that of the letter before."""
    scores = []
    for episode in episodes:
        is_vowel = [letter in VOWELS for letter in episode.prompt[-1] + episode.text]
        pairs = list(pairwise(is_vowel))
        scores.append(sum(a != b for a, b in pairs) / len(pairs))
    return scores


TASK: dict[str, Any] = {
    "prompts": ["a", "b", "c", "d"],
    "reward": turns,
    "tokenizer": Letters(),
    "max_new_tokens": 8,
    "stop_tokens": (),
}

# The shape of every driver's `TransformerPolicy`.
NETWORK = {"n_layer": 2, "n_head": 2, "n_embd": 32}


def make_env() -> gym.Env:
    """One environment."""
    return gym.make("textenv/Generate-v0", **TASK)


def make_envs(num_envs: int, **options: Any) -> VectorEnv:
    """A vector of `num_envs`; by default a row that ends is restarted in the same step."""
    return gym.make_vec("textenv/Generate-v0", num_envs=num_envs, **TASK, **options)

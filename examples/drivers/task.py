"""The tasks of every driver: to write letters in which vowels and consonants take turns.

A token is one of sixteen letters. In `TASK` the policy writes eight of them alone. In `WORLD` it
writes one, a partner answers with one to three random ones, and it writes one more: a conversation
of two turns. A uniformly random policy scores 0.375 in both. A perfect one scores 1, which needs a
policy that reads the letter before. Nothing here depends on the library that trains.
"""

import sys
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


class Partner(textenv.World):
    """Pays half for a turn of the other kind than the letter before it; says random letters."""

    def begin(self, record, rng):
        """The opening is the prompt."""
        self.before = record["prompt"]

    def reply(self, turn, rng):
        """Pay, and go on with one to three letters."""
        right = (turn.text in VOWELS) != (self.before[-1] in VOWELS)
        self.before = "".join(rng.choice(list(LETTERS), size=rng.integers(1, 4)))
        return textenv.Reply(self.before, reward=0.5 * right)


TASK: dict[str, Any] = {
    "prompts": ["a", "b", "c", "d"],
    "reward": turns,
    "tokenizer": Letters(),
    "max_new_tokens": 8,
    "stop_tokens": (),
}

WORLD: dict[str, Any] = {
    "prompts": ["a", "b", "c", "d"],
    "world": Partner,
    "tokenizer": Letters(),
    "max_new_tokens": 6,
    "max_turns": 2,
    "max_turn_tokens": 1,
    "stop_tokens": (),
}

# The shape of every driver's `TransformerPolicy`.
NETWORK = {"n_layer": 2, "n_head": 2, "n_embd": 32}


def make_env(task: dict[str, Any] = TASK) -> gym.Env:
    """One environment."""
    return gym.make("textenv/Generate-v0", **task)


def make_envs(num_envs: int, task: dict[str, Any] = TASK, **options: Any) -> VectorEnv:
    """A vector of `num_envs`; by default a row that ends is restarted in the same step."""
    return gym.make_vec("textenv/Generate-v0", num_envs=num_envs, **task, **options)


def arguments() -> dict[str, Any]:
    """What is given on the command line: how many tokens, and "world" for the conversation."""
    given = sys.argv[1:]
    return {
        "total_tokens": int(given[0]) if given else 30_000,
        "task": WORLD if given[1:] == ["world"] else TASK,
    }

"""What is so in the assistant's world, and which questions training never asks."""

import hashlib
from collections.abc import Mapping
from functools import cache

import numpy as np

from textenv.tasks.assistant.languages import language

ASKED = ("town", "job", "pet", "food", "age")
"""Attributes that training dialogues ask for; `colour` is one that they do not."""
HELD_OUT_SHARE, DEVELOPMENT_SHARE = 0.2, 0.1
"""Of the facts, sums, lists and so on: they are asked in no training dialogue."""
NEW = "new"
"""Begins the key of a question of which nothing occurs in training."""

_SEED = 20220304


@cache
def facts(code: str) -> Mapping[str, Mapping[str, str]]:
    """The values of each person's attributes, by name.

    Of each person one attribute is not stated anywhere, so it is missing here.
    """
    words, rng = language(code), np.random.default_rng(_SEED)
    known: dict[str, Mapping[str, str]] = {}
    for name, _ in words.names:
        drawn = {
            attribute: values[int(rng.integers(len(values)))]
            for attribute, values in words.values.items()
        }
        del drawn[ASKED[int(rng.integers(len(ASKED)))]]
        known[name] = drawn
    return known


def part_of(*key: object) -> str:
    """Where a question with this content is asked; the same in every run.

    Returns:
        `training`, `development` or `held_out`.
    """
    if key[0] == NEW:
        return "held_out"
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    place = int.from_bytes(digest, "big") / 2**32
    if place < HELD_OUT_SHARE:
        return "held_out"
    return "development" if place < HELD_OUT_SHARE + DEVELOPMENT_SHARE else "training"


def is_held_out(*key: object) -> bool:
    """Whether a question with this content is in no training dialogue."""
    return part_of(*key) != "training"

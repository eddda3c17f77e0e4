"""Holding out what was not learned from: whatever shares a text stays on one side."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def hold_out(
    items: Sequence[T],
    key: Callable[[T], Hashable],
    count_of: Callable[[int], int],
    rng: np.random.Generator,
) -> tuple[list[T], list[T]]:
    """Shuffle the items and hold some out; items of the same key are not parted.

    Args:
        items: At least one.
        key: What must not be seen on both sides, such as the text of a prompt.
        count_of: From the number of different keys, how many to hold out; one key is always left.
        rng: Shuffles the keys.

    Returns:
        The items that are held out, and the others.
    """
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    alike = list(groups.values())
    shuffled = [alike[place] for place in rng.permutation(len(alike))]
    cut = min(count_of(len(groups)), len(groups) - 1)
    held_out, learned = shuffled[:cut], shuffled[cut:]
    return [item for group in held_out for item in group], [i for group in learned for i in group]

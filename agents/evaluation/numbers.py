"""Random numbers that belong to a held-out prompt, so that policies are compared on equal ones."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from textenv import Prompt
from textenv.seeding import draw_seed, keyed_generator


def numbers_of(prompts: Sequence[Prompt], seed: int) -> list[np.random.Generator]:
    """The source of each prompt's numbers: a function of the seed and of what the policy reads.

    They depend neither on the order of the prompts, nor on which others there are, nor on the
    batch. A prompt that is asked several times has other numbers each time.

    Args:
        prompts: The prompts, in any order.
        seed: Any integer.
    """
    asked: Counter[str | bytes] = Counter()
    generators = []
    for prompt in prompts:
        content = prompt.content
        read = content.encode() if isinstance(content, str) else content
        digest = hashlib.blake2b(read, digest_size=8).digest()
        number = draw_seed(int.from_bytes(digest, "little"), asked[content])
        generators.append(keyed_generator(seed, number))
        asked[content] += 1
    return generators

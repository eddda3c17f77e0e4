"""Random numbers for libraries that draw from the generators of the whole process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_BITS = np.random.MT19937(0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, Python's and NumPy's global generators draw the numbers of `seed`.

    Games of TextArena and GEM draw from them, so what one row is dealt depends on every other row.
    With a seed for each step it depends on the row's own turn. The generators go on afterwards as
    if nothing had been drawn.

    >>> with seeded(3):
    ...     inside = random.random(), float(np.random.random())
    >>> with seeded(3):
    ...     again = random.random(), float(np.random.random())
    >>> inside == again
    True

    Args:
        seed: 0 to 2**32 - 1.
    """
    # NumPy's generator is exchanged: its state takes longer to copy than a game to step.
    state, bits = random.getstate(), np.random.get_bit_generator()
    random.seed(seed)
    np.random.set_bit_generator(_BITS)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_bit_generator(bits)

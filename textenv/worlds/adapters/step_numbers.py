"""Random numbers for one step of one row, for environments of other libraries.

A generator for each step would take longer to make than many an environment to step. So there is
one, which is given a new key; and the generators of the process are kept once for all rows.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Rekeyed:
    """One NumPy generator that begins anew with each key.

    >>> numbers = Rekeyed()
    >>> first = numbers.of(5).random()
    >>> _ = numbers.of(6).random()
    >>> numbers.of(5).random() == first
    True
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._begin = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def of(self, key: int) -> np.random.Generator:
        """The numbers of `key`, until the next call."""
        self._begin["state"]["key"][0] = key
        self._bits.state = self._begin
        return self._generator


_MERSENNE = np.random.MT19937(0)
_numpy: Any = np.random  # its type stubs lack the functions that exchange the generator


@contextmanager
def global_numbers_kept() -> Iterator[None]:
    """Inside, `seed_global_numbers` may be called; outside, nothing is seen of it.

    Games of TextArena and GEM draw from the generators of the process, so what one row is dealt
    would depend on every other row, and on everything else that draws.
    """
    # NumPy's generator is exchanged: its state takes longer to copy than a game to step.
    state, bits = random.getstate(), _numpy.get_bit_generator()
    _numpy.set_bit_generator(_MERSENNE)
    try:
        yield
    finally:
        random.setstate(state)
        _numpy.set_bit_generator(bits)


def seed_global_numbers(seed: int) -> None:
    """Let Python's and NumPy's global generators draw the numbers of `seed`, 0 to 2**32 - 1.

    >>> with global_numbers_kept():
    ...     seed_global_numbers(3)
    ...     first = random.random(), float(np.random.random())
    ...     seed_global_numbers(3)
    ...     (random.random(), float(np.random.random())) == first
    True
    """
    random.seed(seed)
    np.random.seed(seed)

"""Random orders for samplers: NumPy's generator, seeded by a draw from this library's.

Drawing an order with tensors would compile a sort for every length of dataset.
"""

from __future__ import annotations

from typing import Any

import numpy

import lazygrad as lg


def draw_seed(generator: Any = None) -> int:
    """A fresh 63-bit seed; advances the generator (the default one for None), so that `manual_seed`
    decides it.
    """
    options = {} if generator is None else {"generator": generator}
    high, low = lg.randint(0, 2**31 - 1, (2,), dtype=lg.int64, **options).tolist()
    return (high << 31) | low


def numpy_generator(generator: Any = None) -> numpy.random.Generator:
    """NumPy's generator with a fresh seed."""
    return numpy.random.default_rng(draw_seed(generator))

"""Random bits in NumPy: what `random_bits` and dropout inside attention draw."""

from __future__ import annotations

import math

import numpy


def philox(seed: int, first_block: int, blocks: int) -> numpy.ndarray:
    """Philox 4x32-10 (Salmon et al., SC 2011): words (blocks, 4) of counters first_block,
    first_block + 1, …
    """
    mask = numpy.uint64(0xFFFFFFFF)
    counter = numpy.uint64(first_block % 2**64) + numpy.arange(blocks, dtype=numpy.uint64)
    c0, c1 = counter & mask, counter >> numpy.uint64(32)
    c2 = numpy.zeros_like(c0)
    c3 = numpy.zeros_like(c0)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = numpy.uint64(0xD2511F53) * c0, numpy.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> numpy.uint64(32)) ^ c1 ^ numpy.uint64(k0),
            p1 & mask,
            (p0 >> numpy.uint64(32)) ^ c3 ^ numpy.uint64(k1),
            p0 & mask,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return numpy.stack([c0, c1, c2, c3], axis=1).astype(numpy.uint32)


def random_bits(state: numpy.ndarray, shape: tuple[int, ...]) -> numpy.ndarray:
    """uint32 in every place; state: (seed, offset)."""
    seed, offset = (int(number) for number in state)
    count = math.prod(shape)
    words = philox(seed % 2**64, offset, -(-count // 4))
    return words.reshape(-1)[:count].reshape(shape)

"""Which tile of a contraction a block takes: the one with the least time, by counting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.loops.kernel import ContractionKernel

MANY_WAVES = 4
"""Waves from which on the last one counts for the share of it that is there."""


class _Tile(Protocol):
    @property
    def m(self) -> int: ...
    @property
    def n(self) -> int: ...


AnyTile = TypeVar("AnyTile", bound=_Tile)


def fastest_tile(
    kernel: ContractionKernel, target: CudaTarget, tiles: Iterable[tuple[AnyTile, float]],
    stays: bool = False,
) -> AnyTile:  # fmt: skip
    """The tile with the least time: waves of blocks, times what a block computes.

    tiles: with the speed that each comes to; the first one among equals.  stays: whether blocks
    stay and take tile after tile, so that the last wave counts as a whole, however many there are.
    """

    def time(candidate: tuple[AnyTile, float]) -> float:
        tile, speed = candidate
        count = -(-kernel.m.extent // tile.m) * -(-kernel.n.extent // tile.n)
        count *= kernel.batch.extent
        waves = count / target.multiprocessors
        if stays or waves < MANY_WAVES:
            waves = float(-(-count // target.multiprocessors))
        return waves * tile.m * tile.n / speed

    return min(tiles, key=time)[0]

"""The register tiles that a contraction may have, with the cycles that each takes: for the planner
of its blocks (`schedule_contraction.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lazygrad_compiler.loops.rounding import ceil_div, round_up
from lazygrad_compiler.target import Target

FMAS_PER_CYCLE = 2
LOADS_PER_CYCLE = 2
FMA_LATENCY = 4
SPARE = (2, 3)
"""Registers for elements on their way, of 16 and of 32.  On Zen 5 tiles of 6 x 4 and 8 x 3 vectors
come within 1 to 3 % of the peak; 14 x 2, 5 x 5 and 4 x 6, which leave one, stay 4 to 15 % below.
"""
TILE_OVERHEAD = 20
"""Cycles to enter and leave a register tile."""


def _tile_cycles(rows: int, vectors: int, depth: int) -> float:
    """Cycles that a register tile takes for each value of k.  depth: of one part of k.

    A little is added for loads, more for those of the panel, which come from L2; the tile's own
    loads and stores are spread over the part.
    """
    sums, loads = rows * vectors, rows + vectors
    bound = max(sums / FMAS_PER_CYCLE, loads / LOADS_PER_CYCLE, FMA_LATENCY)
    return bound + 0.15 * (loads + vectors) + (2 * sums + TILE_OVERHEAD) / depth


def longest_part(target: Target, nr: int, itemsize: int) -> int:
    """Of k: a panel of so many rows takes a quarter of L2, from where it streams into L1."""
    return max(target.l2_bytes // 4 // (nr * itemsize), 64)


def part_of(k: int, limit: int, lanes: int) -> int:
    """The length of equal parts of k; a little over the limit is no reason for a second part."""
    parts = 1 if k <= limit * 3 // 2 else ceil_div(k, limit)
    return max(round_up(ceil_div(k, parts), lanes), lanes)


@dataclass(frozen=True, slots=True)
class Tiling:
    """m rows in strips, n columns in panels of so many vectors, k in parts of kc."""

    strips: int
    vectors: int
    panels: int
    kc: int
    cycles: float  # of all tiles over all of k


def tilings(
    m: int, n: int, k: int, lanes: int, itemsize: int, target: Target
) -> Iterator[Tiling]:
    """Every register tile that fits."""
    total = ceil_div(n, lanes)
    seen = set()
    for most in range(1, target.registers):
        strips = ceil_div(m, most)
        rows = ceil_div(m, strips)
        limit = (target.registers - SPARE[target.registers >= 32]) // (rows + 1)
        for wish in range(1, min(limit, total) + 1):
            panels = ceil_div(total, wish)
            vectors = ceil_div(total, panels)
            if (strips, vectors) in seen:
                continue
            seen.add((strips, vectors))
            kc = part_of(k, longest_part(target, vectors * lanes, itemsize), lanes)
            last = total - (panels - 1) * vectors
            each = (panels - 1) * _tile_cycles(rows, vectors, min(k, kc)) + _tile_cycles(
                rows, last, min(k, kc)
            )
            yield Tiling(strips, vectors, panels, kc, strips * each * k)

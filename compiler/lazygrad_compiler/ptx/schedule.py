"""Schedules of loop kernels on a GPU: which threads compute what.

In: a loop kernel and a target.  Out: a `LoopGrid`, plain data.  A kernel without inner axes is a
map: threads take vectors of neighbouring points.  Any other is cut into rows, and a team of threads
takes each row: one thread, some lanes of a warp, a warp or a block, by the length of the row.
Where memory runs along the rows' axis rather than inside the rows, neighbouring threads take
neighbouring rows (`across`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.loops.kernel import LoopKernel
from lazygrad_compiler.loops.schedule import contiguity, instr_cost
from lazygrad_compiler.ptx.builder import WARP

MAP_THREADS = 256
BLOCK_THREADS = 128
"""Threads of a block of small teams."""
HELD = 8
"""Vectors of a row that a thread holds in registers at most: then each is loaded once, whatever
the number of stages."""
IN_FLIGHT = 4
"""Vectors that a thread loads before it uses the first."""
DEAR = 400
"""Cost of the instrs of a kernel from which on code is not written several times over."""


@dataclass(frozen=True, slots=True)
class LoopGrid:
    """order: the row axes, the one that neighbouring threads run along last.  inner: for each stage
    the order of its axes.  lanes: elements a thread takes at a time, along the last row axis of a
    map or inside a row.  unroll: how many of those it takes together.  threads: of a block.  team:
    threads a row; across: see above; held: whether a row stays in registers.
    """

    order: tuple[int, ...]
    inner: tuple[tuple[int, ...], ...]
    lanes: int
    unroll: int
    threads: int
    team: int = 1
    across: bool = False
    held: bool = False

    @property
    def rows(self) -> int:
        """Rows that a block takes."""
        return self.threads // self.team


def is_map(kernel: LoopKernel) -> bool:
    return not any(stage.axes for stage in kernel.stages)


def lanes_for(kernel: LoopKernel, extent: int, whole: bool) -> int:
    """Elements of an access of 16 bytes of the narrowest buffer, as long as the widest takes no
    more than two.  whole: the extent must be a multiple.
    """
    sizes = [buffer.dtype.itemsize for buffer in kernel.buffers]
    lanes = min(16 // min(sizes, default=4), 32 // max(sizes, default=4))
    if any(instr.op in ("dynamic", "rem", "pow", "gcd") for instr in kernel.values):
        lanes = 1  # branches and loops for each lane
    while lanes > 1 and (extent < lanes or (whole and extent % lanes)):
        lanes //= 2
    return max(lanes, 1)


def best_last(kernel: LoopKernel, axes) -> tuple[tuple[int, ...], float]:
    """The order of axes with the one last along which most accesses are contiguous, and its score.
    The later one among equals.
    """
    best, place = -math.inf, len(axes) - 1
    for position, axis in enumerate(axes):
        good, varying = contiguity(kernel, axis)
        if axis.extent > 1 and varying and good >= best:
            best, place = good, position
    return (*(p for p in range(len(axes)) if p != place), *([place] if axes else [])), best


def schedule_loops(kernel: LoopKernel, target: CudaTarget) -> LoopGrid:
    order, row_score = best_last(kernel, kernel.row_axes)
    inner, inner_score = [], -math.inf
    for stage in kernel.stages:
        axes, score = best_last(kernel, stage.axes)
        inner.append(axes)
        if stage.axes:
            inner_score = score if inner_score == -math.inf else inner_score + score
    cost = sum(instr_cost(instr) for instr in kernel.values)
    if is_map(kernel):
        return _map(kernel, target, order, tuple(inner), cost)
    return _rows(kernel, target, order, tuple(inner), cost, row_score > inner_score + 0.5)


def _map(
    kernel: LoopKernel,
    target: CudaTarget,
    order: tuple[int, ...],
    inner: tuple[tuple[int, ...], ...],
    cost: int,
) -> LoopGrid:
    extents = [axis.extent for axis in kernel.row_axes]
    size = math.prod(extents)
    last = extents[order[-1]] if order else 1
    lanes = lanes_for(kernel, last, whole=len(extents) > 1)
    if cost > DEAR:
        lanes = 1
    # several vectors a thread only where that leaves enough blocks to fill the machine
    unroll = IN_FLIGHT if cost <= DEAR // 4 else 1
    while unroll > 1 and size < 8 * target.multiprocessors * MAP_THREADS * lanes * unroll:
        unroll //= 2
    threads = MAP_THREADS
    while threads > WARP and size <= threads // 2 * lanes:
        threads //= 2
    return LoopGrid(order, inner, lanes, unroll, threads)


def _rows(
    kernel: LoopKernel,
    target: CudaTarget,
    order: tuple[int, ...],
    inner: tuple[tuple[int, ...], ...],
    cost: int,
    across: bool,
) -> LoopGrid:
    length = max(math.prod(axis.extent for axis in stage.axes) for stage in kernel.stages)
    rows = math.prod(axis.extent for axis in kernel.row_axes)
    lasts = [
        stage.axes[axes[-1]].extent
        for stage, axes in zip(kernel.stages, inner, strict=True)
        if stage.axes
    ]
    dear = cost > DEAR
    if across and rows >= WARP // 2:
        slices = 1
        filling = 4 * target.multiprocessors * BLOCK_THREADS
        while slices < 16 and rows * slices < filling and length >= 8 * slices:
            slices *= 2
        threads = max(WARP * slices, 2 * WARP)
        return LoopGrid(order, inner, 1, 1 if dear else IN_FLIGHT, threads, slices, True)
    lanes = 1 if dear else min(lanes_for(kernel, last, whole=True) for last in lasts)
    team = 1
    while team < WARP and team * lanes < length:
        team *= 2
    threads = BLOCK_THREADS
    if length > WARP * lanes * HELD:
        team = BLOCK_THREADS
        while team < 1024 and length > team * lanes * HELD:
            team *= 2
        if length > team * lanes * HELD:
            team = 512
        threads = team
    held = length <= team * lanes * HELD and not dear
    return LoopGrid(
        order, inner, lanes, 1 if dear else IN_FLIGHT, threads, team, False, held
    )

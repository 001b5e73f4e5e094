"""Tiled schedules of row kernels: several rows at once, in registers, so that they share loads.

For kernels that read each element many times: sliding windows (depthwise convolutions, pooling)
and their gradients.  The stage's short axes are unrolled, and a tile of neighbouring rows is
computed together; after unrolling, an element that several windows hold is loaded once
(`loops/unroll.py`).  Depthwise 7x7 over 8x96x56x56 took 1.2 ms so on two cores of Zen 5, row by row
7.5; since columns of the window come one after the other (`llvm/tiles.py`) it takes 0.7, of
which 0.5 are its multiplications.  The gradient of its weights has the taps as rows and goes along
images; a tile that is one row of taps, all of which want the same masks above and below, takes 2.2
instead of 3.3 with eight at a time, and 1.6 where the vectors of a short row are written out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lazygrad_compiler.loops.index import Affine, Term, Var, variable
from lazygrad_compiler.loops.kernel import LoopKernel, Stage
from lazygrad_compiler.loops.schedule import schedule_loops
from lazygrad_compiler.loops.unroll import Unrolled
from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class TileSchedule:
    """vector: "row" or "inner", as in a `LoopSchedule`.  lanes: of one register.  vector_axis:
    position of the row axis, or of the stage's, that the vector runs along.  chunk: elements of a
    vectorised row axis in one task.  tile_axis: position of the row axis that is tiled.  tile: rows
    of it at a time.  grain: tasks that a thread takes at a time.
    """

    vector: str
    lanes: int
    vector_axis: int
    chunk: int
    tile_axis: int
    tile: int
    grain: int


MOST_UNROLLED = 512
"""Points of a tile and its window together: some 500 multiplications in a row."""

MOST_WINDOW = 128
LEAST_REUSE = 6
"""Times that an element is read; below, memory is the limit and rows one by one are as fast."""

TASK_CYCLES = 40_000


def schedule_tiles(kernel: LoopKernel, target: Target) -> TileSchedule | None:
    """The tiled schedule of a kernel that gains by one; None for all others."""
    if not _fits(kernel):
        return None
    stage = kernel.stages[0]
    loops = schedule_loops(kernel, target)
    if loops.vector == "none":
        return None
    lanes = _one_register(kernel, target)
    window = math.prod(axis.extent for axis in stage.axes) if loops.vector == "row" else 1
    if window > MOST_WINDOW or _reuse(kernel, stage) < LEAST_REUSE:
        return None
    vector = kernel.row_axes[loops.row_order[-1]] if loops.vector == "row" else None
    most = 4
    if target.registers >= 32:
        most = 8 if loops.vector == "row" else 9  # all taps of 3x3
    best: tuple[float, int, int] | None = None
    for position, axis in enumerate(kernel.row_axes):
        if axis == vector:
            continue
        for tile in range(1, min(most, axis.extent, MOST_UNROLLED // window) + 1):
            if axis.extent % tile and axis.extent < 4 * tile:
                continue
            cost = _loads(kernel, stage, axis, tile, unrolled=loops.vector == "row") / tile
            # sums of one row wait for each other: several rows hide that, of which those that are
            # left over, one by one, have none
            alone = axis.extent % tile / axis.extent
            cost += window * (0.5 * max(4 / tile, 1) * (1 - alone) + 2 * alone + 0.01 * (alone > 0))
            if best is None or cost < best[0]:
                best = cost, position, tile
    if best is None or (best[2] == 1 and loops.vector == "inner"):
        return None
    _, position, tile = best
    chunk = 1
    along = loops.row_order[-1] if vector is not None else loops.inner_order[0][-1]
    if vector is not None:
        chunk = min(512, -(-vector.extent // lanes) * lanes)
    elif lanes > stage.axes[along].extent:
        return None
    trips = math.prod(axis.extent for axis in stage.axes) * chunk
    grain = max(1, int(TASK_CYCLES * lanes / (2 * trips * tile)))
    return TileSchedule(loops.vector, lanes, along, chunk, position, tile, grain)


def _fits(kernel: LoopKernel) -> bool:
    """One stage that reduces, others after it only for the row; nothing read at run time."""
    first, *others = kernel.stages
    return (
        bool(first.axes and first.reductions and kernel.row_axes)
        and not kernel.kept
        and not any(stage.axes for stage in others)
        and all(reduction.position is None for reduction in first.reductions)
        and all(store.value in {r.result for r in first.reductions} for store in first.stores)
        and all(instr.op != "dynamic" for instr in kernel.values)
        and all(axis.extent for axis in (*kernel.row_axes, *first.axes))
    )


def _one_register(kernel: LoopKernel, target: Target) -> int:
    """Lanes of one register of the widest dtype (at least 32 bits: narrow floats are widened)."""
    widest = max((buffer.dtype.itemsize for buffer in kernel.buffers), default=4)
    return target.lanes(8 * min(max(widest, 4), 8))


def _reuse(kernel: LoopKernel, stage: Stage) -> float:
    """How often an element of the largest operand that the stage reads is read."""
    points = math.prod(axis.extent for axis in (*kernel.row_axes, *stage.axes))
    read = {kernel.values[n].data[0] for n in stage.values if kernel.values[n].op == "load"}
    return points / max((kernel.buffers[number].size for number in read), default=points)


def tile_variable(axis: Var, tile: int) -> Var:
    """The variable that counts tiles along an axis."""
    return Var(f"{axis.name}_of_{tile}", axis.extent // tile)


def tile_place(axis: Var, tile: int, row: int) -> Affine:
    """The axis's index in the row of a tile."""
    return variable(tile_variable(axis, tile)) * tile + row if tile > 1 else variable(axis)


def window_points(stage: Stage) -> list[dict[Term, Affine]]:
    """The stage's axes as numbers, one mapping for each point, in order."""
    points: list[dict[Term, Affine]] = [{}]
    for axis in stage.axes:
        points = [{**point, axis: Affine(k)} for point in points for k in range(axis.extent)]
    return points


def _loads(kernel: LoopKernel, stage: Stage, axis: Var, tile: int, unrolled: bool) -> int:
    """Distinct loads of one tile."""
    code = Unrolled(kernel.values)
    windows = window_points(stage) if unrolled else [{}]
    for row in range(tile):
        for window in windows:
            place = code.place({**window, axis: tile_place(axis, tile, row)})
            for reduction in stage.reductions:
                code.at(reduction.value, place)
    return sum(instr.op == "load" for instr in code.values)

"""Lowering of scans, and of the compaction of a mask: which launches, and how a line is cut.

An array is (outer, length, inner), the scan running along the middle axis.  Where outer and inner
make tasks enough, one launch does: each task scans whole lines.  Few long lines are cut:

  totals   the total of each chunk
  prefix   what comes before each chunk: an exclusive scan of the totals
  chunks   each chunk, starting from what comes before it

That reads the input twice, and lets all threads take part.  How lines are cut depends on the shape
alone, so the number of threads changes no bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node, Shape
from lazygrad_compiler.loops.arrays import array_launch, temporary
from lazygrad_compiler.loops.kernel import ArrayKernel, Launch
from lazygrad_compiler.loops.lower import Group

CHUNK_ELEMENTS = 1 << 14
ALIGNED_POSITIONS = 64
"""Chunks are multiples of it, so that they begin at whole vectors."""
LARGE = 1 << 17
"""Elements from which on it pays to wake the threads for one line."""
TASKS_ENOUGH = 16
COLUMNS_A_TASK = 64

COMPACT_CHUNK = 1 << 15
"""Elements of a mask that one task of a compaction looks at."""


@dataclass(frozen=True, slots=True)
class Lines:
    """An array as lines to scan: element (o, k, i) lies at (o * length + k) * inner + i.

    chunk: positions of the middle axis that a task takes; chunks: how many of those make a line.
    """

    outer: int
    length: int
    inner: int
    chunk: int
    chunks: int


def lines_of(shape: Shape, axis: int) -> Lines:
    outer, length, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    tasks = outer * -(-inner // COLUMNS_A_TASK)
    if outer * length * inner < LARGE or tasks >= TASKS_ENOUGH:
        return Lines(outer, length, inner, length, 1)
    positions = -(-CHUNK_ELEMENTS // (inner * ALIGNED_POSITIONS)) * ALIGNED_POSITIONS
    return Lines(outer, length, inner, positions, -(-length // positions))


def accumulator_dtype(dtype: DType) -> DType:
    """What totals are held in: float32 for 16-bit floats, a byte for bools."""
    if dtype.kind == "float" and dtype.bits == 16:
        return dtypes.float32
    return dtypes.uint8 if dtype.kind == "bool" else dtype


def lower_running(anchor: Node, lines: Lines) -> list[Launch]:
    """One launch, or three where the lines are cut into chunks; `lines` is the target's cut."""
    source = anchor.inputs[0]
    if lines.chunks == 1:
        return [array_launch(anchor, [source], [anchor], "scan", "whole")]
    wide = accumulator_dtype(anchor.dtype)
    cut = (lines.outer, lines.chunks, lines.inner)
    totals, before = temporary(wide, cut), temporary(wide, cut)
    return [
        array_launch(anchor, [source], [totals], "scan", "totals"),
        array_launch(anchor, [totals], [before], "scan", "prefix"),
        array_launch(anchor, [source, before], [anchor], "scan", "chunks"),
    ]


def without_attributes(launch: Launch) -> Launch:
    assert isinstance(launch.kernel, ArrayKernel)
    return replace(launch, kernel=replace(launch.kernel, attrs=()))


def lower_compact(anchor: Node) -> list[Launch]:
    """Counts of the chunks, where each begins, and the positions themselves."""
    (mask,) = anchor.inputs
    count = -(-mask.size // COMPACT_CHUNK)
    counts, begins = temporary(dtypes.int64, (count,)), temporary(dtypes.int64, (count,))
    launches = [
        array_launch(anchor, [mask], [counts], "scan", "count"),
        array_launch(anchor, [counts], [begins], "scan", "begins"),
        array_launch(anchor, [mask, begins], [anchor], "scan", "positions"),
    ]
    # without the count, which only the last one's result depends on, kernels serve any mask
    return [without_attributes(each) for each in launches]


def lower_scan(group: Group) -> list[Launch]:
    anchor = group.anchor
    assert anchor is not None
    if anchor.op == "compact":
        return lower_compact(anchor)
    return lower_running(anchor, lines_of(anchor.shape, anchor.attrs[0]))


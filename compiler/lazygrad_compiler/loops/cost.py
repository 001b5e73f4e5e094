"""What a launch costs at least: floating-point operations and bytes of memory, from its loop IR.

Operations are counted as one counts by hand: each elementwise operation on floating numbers is one
(an exponential, too), as is each element that a reduction takes in; a product of matrices takes
2 m n k; a polynomial twice its degree.  What is computed again in a later pass over a row counts
once.  Comparisons, selections, conversions and work on integers are no operations.

Bytes are those that have to cross between memory and processor once: of each buffer the elements
that the kernel can touch, read or written (both where it updates).  A launch that keeps its data in
cache moves fewer; one whose caches are too small moves more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lazygrad_compiler.loops.attention import sizes_of
from lazygrad_compiler.loops.index import Affine, Div, Dyn, Mod, Var
from lazygrad_compiler.loops.kernel import (
    ArrayKernel,
    ContractionKernel,
    Instr,
    Kernel,
    LoopKernel,
    Stage,
)

NOT_COUNTED = frozenset({
    "load", "index", "bounds", "divides", "const", "philox", "dynamic", "checked", "row",
    "kept", "accumulator", "where", "cast", "bitcast", "neg", "abs",
})


@dataclass(frozen=True, slots=True)
class Cost:
    """flops: floating-point operations.  read, written: bytes."""

    flops: int
    read: int
    written: int

    @property
    def nbytes(self) -> int:
        return self.read + self.written

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.nbytes if self.nbytes else 0.0


def cost_of(kernel: Kernel) -> Cost:
    """The cost of one launch of the kernel."""
    if isinstance(kernel, ArrayKernel):
        return _array_cost(kernel)
    if isinstance(kernel, LoopKernel):
        counts = _Counts(kernel)
        for stage in kernel.stages:
            counts.stage(stage, kernel.row_axes)
    elif isinstance(kernel, ContractionKernel):
        counts = _Counts(kernel)
        left, right = (kernel.batch, kernel.m, kernel.k), (kernel.batch, kernel.k, kernel.n)
        counts.values(kernel.left_values, left)
        counts.values(kernel.right_values, right)
        counts.stage(kernel.epilogue, ())
        if kernel.dtype.is_floating:
            counts.flops += 2 * math.prod(
                axis.extent for axis in (kernel.batch, kernel.m, kernel.n, kernel.k))
    else:
        counts = _Counts(kernel)
        axes = (*kernel.outer, *kernel.inner)
        counts.values(range(len(kernel.values)), axes)
        updates = math.prod(axis.extent for axis in axes)
        target = kernel.buffers[kernel.target]
        counts.touch(counts.written, kernel.target, updates)
        if kernel.mode != "set":
            counts.touch(counts.read, kernel.target, updates)
            if target.dtype.is_floating:
                counts.flops += updates
    return counts.total()


class _Counts:
    """Sums over one kernel: operations, and elements touched by buffer."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.flops = 0
        self.known: dict[tuple, int] = {}  # each distinct value by what it is
        self.read: dict[int, int] = {}
        self.written: dict[int, int] = {}

    def touch(self, elements: dict[int, int], buffer: int, count: int) -> None:
        elements[buffer] = min(elements.get(buffer, 0) + count, self.kernel.buffers[buffer].size)

    def stage(self, stage: Stage, rows: tuple[Var, ...]) -> None:
        axes = (*rows, *stage.axes)
        trips = math.prod(axis.extent for axis in axes)
        self.values(stage.values, axes)
        for reduction in stage.reductions:
            if self.kernel.values[reduction.value].dtype.is_floating:
                self.flops += trips
        for column in stage.columns:
            self.touch(self.written, column.buffer, self.kernel.buffers[column.buffer].size)
            if self.kernel.buffers[column.buffer].dtype.is_floating:
                self.flops += trips
        for store in stage.stores:
            self.touch(self.written, store.buffer, _places(store.index, axes, trips))

    def values(self, numbers: Iterable[int], axes: tuple[Var, ...]) -> None:
        trips = math.prod(axis.extent for axis in axes)
        places = {axis.name: f"axis{position}" for position, axis in enumerate(axes)}
        same: dict[int, int] = {}
        for number in numbers:
            instr = self.kernel.values[number]
            arguments = [same.get(argument, argument) for argument in instr.args]
            what: tuple = (instr.op, instr.dtype.name, *arguments, trips,
                           *[_renamed(item, places) for item in instr.data])
            if instr.op == "row":
                what = ("row", number)
            new = what not in self.known
            same[number] = self.known.setdefault(what, -1 - len(self.known))
            if not new:
                continue
            if instr.op == "load":
                buffer, index = instr.data
                self.touch(self.read, buffer, _places(index, axes, trips))
            else:
                self.flops += trips * _operations(instr)

    def total(self) -> Cost:
        def size(elements: dict[int, int]) -> int:
            return sum(count * self.kernel.buffers[buffer].dtype.itemsize
                       for buffer, count in elements.items())

        return Cost(self.flops, size(self.read), size(self.written))


def _renamed(item: Any, places: dict[str, str]) -> str:
    return re.sub(r"[A-Za-z]\w*", lambda found: places.get(found[0], found[0]), str(item))


def _operations(instr: Instr) -> int:
    if not instr.dtype.is_floating or instr.op in NOT_COUNTED:
        return 0
    return 2 * (len(instr.data[0]) - 1) if instr.op == "polynomial" else 1


def _places(index: Affine, axes: tuple[Var, ...], trips: int) -> int:
    """How many elements an index can reach while the axes run."""
    found: set[Var] = set()
    stack = [index]
    while stack:
        for term, _ in stack.pop().terms:
            if isinstance(term, Var):
                found.add(term)
            elif isinstance(term, (Div, Mod)):
                stack.append(term.inner)
            elif isinstance(term, Dyn):
                return trips
    return math.prod(axis.extent for axis in axes if axis in found)


def _array_cost(kernel: ArrayKernel) -> Cost:
    """Whole arrays once; a scan and a sum take one operation an element, attention those of its
    products and its softmax; of sorts and library calls none are counted.
    """
    read = sum(b.size * b.dtype.itemsize for b in kernel.buffers if not b.written)
    written = sum(b.size * b.dtype.itemsize for b in kernel.buffers if b.written)
    floating = [b.size for b in kernel.buffers if not b.written and b.dtype.is_floating]
    flops = 0
    if kernel.kind == "scan" or kernel.step in ("sum", "combine"):
        flops = max(floating, default=0)
    elif kernel.kind == "attention":
        flops = _attention_flops(kernel)
    return Cost(flops, read, written)


SOFTMAX_FLOPS = 5
"""For each score: maximum, difference, exponential, sum, quotient (or what backward has instead).
"""


def _attention_flops(kernel: ArrayKernel) -> int:
    """Two products forward; five backward, where the scores are computed again."""
    sizes = sizes_of(kernel)
    seen = sizes.queries * sizes.keys
    if sizes.causal:
        seen = sum(min(query + 1, sizes.keys) for query in range(sizes.queries))
    by_width, by_value_width = (3, 2) if kernel.step.startswith("backward") else (1, 1)
    each = 2 * (by_width * sizes.width + by_value_width * sizes.value_width) + SOFTMAX_FLOPS
    return sizes.batch * sizes.heads * seen * each

"""Operands of `wgmma` that are computed on the way: the producers' warpgroup writes their tiles.

Where a tensor map would bring a tile, its threads fetch vectors of 16 bytes through the kernel's
instrs (`operands.py`) and put them where the copy engine would: rows of 128 bytes whose 16-byte
pieces are permuted by the row's number.  The product reads by another proxy than threads write:
each writing thread has a fence before it arrives at the barrier.

Casts, activations and masks of arrays come by whole vectors.  Windows of a convolution, steps and
gathers do not: their elements are loaded one by one into such vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.loops.index import Var
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.schedule import instr_cost
from lazygrad_compiler.ptx.builder import KernelFunction
from lazygrad_compiler.ptx.operands import Side, TileOperand, contiguous_axis, vector_lanes
from lazygrad_compiler.ptx.warpgroup import BOX, GROUP, ROW_BYTES

PIECE = 16
LANES = PIECE // 2
"""Elements of a vector."""
MOST_ROWS = 128
"""Of a tile that a thread fetches at a time: it holds eight vectors then."""
MOST_ROWS_APART = 32
"""The same where elements are loaded one by one: 16 loads are under way then.  (Twice as many left
the producer of the larger tiles without registers for their addresses.)"""
DEAREST = 24
"""Cost of the instrs of an element up to which four warps keep up with the products: by counting,
not measured.  Of two operands, their costs by rows of the wider one."""
APART = 4
"""What loading an element by itself costs beyond its share of a vector: its address, whether it is
there, the load, its place in the vector."""
LOOPS = ("rem", "pow", "gcd")
"""Ops with a loop for each lane."""


@dataclass(frozen=True, slots=True)
class ComputedOperand:
    """axis: that vectors run along.  whole: whether they come by one access.  cost: of an element.
    """

    side: Side
    axis: Var
    along_k: bool
    whole: bool
    cost: int

    @property
    def across(self) -> bool:
        """Whether vectors run along the free axis instead of k."""
        return not self.along_k


def computed(kernel: ContractionKernel, side: Side) -> ComputedOperand | str:
    """The operand, or why the producer cannot compute it."""
    instrs = [kernel.values[number] for number in side.values]
    ops = {instr.op for instr in instrs}
    if ops.intersection(LOOPS):
        return f"computes {' and '.join(sorted(ops.intersection(LOOPS)))} element by element"
    axis = contiguous_axis(kernel, side)
    if axis.extent % LANES:
        return f"has {axis.extent} elements along memory, not whole steps of {PIECE} bytes"
    whole = vector_lanes(kernel, side, axis, LANES) == LANES
    cost = sum(map(instr_cost, instrs))
    if not whole:
        cost += APART * sum(instr.op == "load" for instr in instrs)
    if cost > DEAREST:
        return f"costs {cost} for each element, more than {DEAREST}"
    return ComputedOperand(side, axis, axis is kernel.k, whole, cost)


class TileWriter:
    """Writes slices of the block's tile of an operand: each of the first GROUP threads its part.

    A slice is written in parts of some rows.  Whole vectors have their addresses ready for all
    parts, and those of the first one are loaded ahead (`early`); where elements come one by one,
    addresses take so many registers that the parts are a loop, which computes them anew.
    """

    def __init__(
        self, f: KernelFunction, kernel: ContractionKernel, operand: ComputedOperand, rows: int,
        dtype: DType,
    ) -> None:  # fmt: skip
        self.f, self.operand, self.dtype = f, operand, dtype
        self.rows = min(rows, MOST_ROWS if operand.whole else MOST_ROWS_APART)
        self.count = rows // self.rows
        self.parts = [
            TileOperand(
                f, kernel, operand.side, self.rows, BOX, GROUP, LANES, apart=not operand.whole
            )
            for _ in range(self.count if operand.whole else 1)
        ]
        self.places = [self._place(row, k) for row, k in self.parts[0].groups]
        self.at: tuple[Value, Value] | None = None

    def _place(self, row: Value, k: Value) -> Value:
        """Of a vector in its part of the tile, in bytes."""
        f = self.f
        line, along = row, k
        if self.operand.across:  # boxes of BOX rows, each with a line for each k
            line = f.add(f.and_(k, BOX - 1), f.mul(f.lshr(row, 6), BOX))
            along = f.and_(row, BOX - 1)
        piece = f.xor(f.lshr(along, 3), f.and_(line, 7))
        return f.add(f.mul(line, ROW_BYTES), f.mul(piece, PIECE))

    def start(self, batch: Value, first: Value) -> None:
        """Stands on the tile whose first row is `first`."""
        f = self.f
        self.at = batch, first
        if self.operand.whole:
            for number, part in enumerate(self.parts):
                part.start(batch, f.add(first, number * self.rows) if number else first)

    def early(self, k0: Value) -> list[Value]:
        """The thread's vectors of the first part of the slice from depth k0 on, as far as they are
        loaded ahead.
        """
        return self.parts[0].fetch(k0, self.dtype) if self.operand.whole else []

    def write(self, buffer: Value, k0: Value, early: list[Value]) -> None:
        """buffer: where the tile lies in shared memory."""
        f = self.f
        if self.operand.whole:
            self._put(buffer, early or self.early(k0))
            for number, part in enumerate(self.parts[1:], 1):
                self._put(f.offset(buffer, number * self.rows * ROW_BYTES, "i8"),
                          part.fetch(k0, self.dtype))
            return
        assert self.at is not None
        batch, first = self.at
        (part,) = self.parts
        with f.loop(const("i32", 0), const("i32", self.count), 1, hint="part") as loop:
            part.start(batch, f.add(first, f.wide(f.mul(loop.index, self.rows))))
            vectors = part.fetch(k0, self.dtype)
            self._put(f.offset(buffer, f.mul(loop.index, self.rows * ROW_BYTES), "i8"), vectors)

    def _put(self, buffer: Value, vectors: list[Value]) -> None:
        for place, vector in zip(self.places, vectors, strict=True):
            self.f.store(vector, self.f.offset(buffer, place, "i8"), PIECE)

"""Operands of `wgmma` that are computed on the way: the producers' warpgroup writes their tiles.

Where a tensor map would bring a tile, its threads fetch vectors of 16 bytes through the kernel's
instrs (`operands.py`) and put them where the copy engine would: rows of 128 bytes whose 16-byte
pieces are permuted by the row's number.  The product reads by another proxy than threads write:
each writing thread has a fence before it arrives at the barrier.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm.builder import Value
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
DEAREST = 24
"""Cost of the instrs of an element up to which four warps keep up with the products: by counting,
not measured."""


@dataclass(frozen=True, slots=True)
class ComputedOperand:
    """across: whether memory runs along the free axis instead of k."""

    side: Side
    across: bool


def computed(kernel: ContractionKernel, side: Side) -> ComputedOperand | None:
    """The operand; None where it does not come in whole vectors, or costs too much."""
    axis = contiguous_axis(kernel, side)
    if vector_lanes(kernel, side, axis, LANES) < LANES:
        return None
    if sum(instr_cost(kernel.values[number]) for number in side.values) > DEAREST:
        return None
    return ComputedOperand(side, axis is not kernel.k)


class TileWriter:
    """Writes slices of the block's tile of an operand: each of the first GROUP threads its part."""

    def __init__(
        self, f: KernelFunction, kernel: ContractionKernel, operand: ComputedOperand, rows: int,
        dtype: DType,
    ) -> None:  # fmt: skip
        self.f, self.operand, self.dtype = f, operand, dtype
        self.rows = min(rows, MOST_ROWS)
        self.parts = [
            TileOperand(f, kernel, operand.side, self.rows, BOX, GROUP, LANES)
            for _ in range(rows // self.rows)
        ]
        self.places = [self._place(row, k) for row, k in self.parts[0].groups]

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
        for number, part in enumerate(self.parts):
            part.start(batch, f.add(first, number * self.rows) if number else first)

    def fetch(self, number: int, k0: Value) -> list[Value]:
        """The thread's vectors of a part of the slice from depth k0 on."""
        return self.parts[number].fetch(k0, self.dtype)

    def put(self, number: int, buffer: Value, vectors: list[Value]) -> None:
        """buffer: where the tile lies in shared memory."""
        f = self.f
        start = number * self.rows * ROW_BYTES
        for place, vector in zip(self.places, vectors, strict=True):
            address = f.offset(buffer, f.add(place, start) if start else place, "i8")
            f.store(vector, address, PIECE)

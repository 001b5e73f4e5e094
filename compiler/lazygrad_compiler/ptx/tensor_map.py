"""Operands of a contraction that a tensor map can describe: plain loads along three axes.

A map is data of the launch: the kernel gets it as a parameter, the runtime has the driver encode it
for the address at hand.  The copy engine takes boxes of 128-byte rows out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.artifact import TensorMap
from lazygrad_compiler.loops.index import Affine, Var
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.operands import Side
from lazygrad_compiler.ptx.warpgroup import BOX

GRAIN = 16
"""Bytes that addresses and strides are multiples of."""
MOST_BYTES = 1 << 40
"""Strides are less."""


@dataclass(frozen=True, slots=True)
class MappedOperand:
    """across: whether memory runs along the free axis instead of k.  batched: whether it has a
    matrix for each of the batch, rather than one for all.
    """

    side: Side
    across: bool
    batched: bool
    map: TensorMap

    def boxes(self, rows: int) -> int:
        """Copies that bring a tile of so many rows."""
        return rows // BOX if self.across else 1


def mapped(kernel: ContractionKernel, side: Side, rows: int) -> MappedOperand | None:
    """The operand in tiles of `rows` by BOX elements; None where a map cannot describe it."""
    instr = kernel.values[side.result]
    if side.values != (side.result,) or instr.op != "load" or instr.args:
        return None
    buffer, index = instr.data
    steps = _steps(index, (kernel.k, side.free, kernel.batch))
    if steps is None:
        return None
    along_k, along_free, along_batch = steps
    across = along_k != 1
    inner, outer = (side.free, kernel.k) if across else (kernel.k, side.free)
    first, second = (along_free, along_k) if across else (along_k, along_free)
    size = instr.dtype.itemsize
    # an axis of one element has no step of its own
    second = second if outer.extent > 1 else -(-inner.extent * size // GRAIN) * GRAIN // size
    batched = kernel.batch.extent > 1 and along_batch != 0
    third = along_batch if batched else second * outer.extent
    if first != 1 and inner.extent > 1:
        return None
    if any(step <= 0 or step * size % GRAIN or step * size >= MOST_BYTES
           for step in (second, third)):
        return None
    if index.constant * size % GRAIN:
        return None
    if outer.extent > 1 and second < inner.extent:
        return None  # rows that overlap, as windows do, are no tensor to the driver
    sizes = (inner.extent, outer.extent, kernel.batch.extent if batched else 1)
    return MappedOperand(
        side,
        across,
        batched,
        TensorMap(
            buffer,
            index.constant * size,
            instr.dtype.name,
            sizes,
            (second * size, third * size),
            (BOX, BOX if across else rows, 1),
        ),
    )


def _steps(index: Affine, axes: tuple[Var, ...]) -> list[int] | None:
    """What the index gains along each axis; None where that is not all that there is to it."""
    if any(term not in axes for term, _ in index.terms):
        return None
    return [index.coefficient(axis) for axis in axes]

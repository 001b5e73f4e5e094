"""Operands of a contraction on their way into shared memory.

In: one side of a `ContractionKernel` and the size of the tile that a block works on.  Out: for each
thread, which elements of the tile it fetches, and their values.  Elements are pulled through the
kernel's own instrs, so that every transposition, gather, cast and window of a convolution is read
where it lies.  A thread fetches vectors along the axis that memory runs along.

Nothing is read out of range: rows beyond the last repeat it, and depths beyond the last become 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.loops.index import Affine, Div, Mod, Var
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.ptx.builder import KernelFunction
from lazygrad_compiler.ptx.loops import make_points
from lazygrad_compiler.ptx.points import ThreadPoints


@dataclass(frozen=True, slots=True)
class Side:
    """One operand: the variable that only it has, the value that is multiplied and its instrs."""

    free: Var
    result: int
    values: tuple[int, ...]


def sides(kernel: ContractionKernel) -> tuple[Side, Side]:
    return (
        Side(kernel.m, kernel.left, kernel.left_values),
        Side(kernel.n, kernel.right, kernel.right_values),
    )


def contiguous_axis(kernel: ContractionKernel, side: Side) -> Var:
    """Whether memory runs along k or along the free axis; k where neither."""
    score = 0
    for index in _indices(kernel, side):
        for axis, sign in ((kernel.k, 1), (side.free, -1)):
            if index.coefficient(axis) == 1 or _last_digit(index, axis):
                score += sign
    return kernel.k if score >= 0 else side.free


def _indices(kernel: ContractionKernel, side: Side) -> list[Affine]:
    return [
        kernel.values[n].data[1] for n in side.values if kernel.values[n].op == "load"
    ]


def _last_digit(index: Affine, axis: Var) -> bool:
    """Whether the index counts with a remainder of the axis, as along the width of an image."""
    return any(
        c == 1 and isinstance(term, Mod) and term.inner.coefficient(axis) == 1
        for term, c in index.terms
    )


def vector_lanes(kernel: ContractionKernel, side: Side, axis: Var, most: int) -> int:
    """How many neighbours along the axis one access can bring."""
    lanes = most
    for number in side.values:
        instr = kernel.values[number]
        if instr.op in ("dynamic", "rem", "pow", "gcd") or (instr.op == "load" and instr.args):
            return 1
    for index in _indices(kernel, side):
        if index.coefficient(axis) not in (0, 1):
            return 1
        while lanes > 1 and not _splits(index, axis, lanes):
            lanes //= 2
    while lanes > 1 and axis.extent % lanes:
        lanes //= 2
    return lanes


def _splits(index: Affine, axis: Var, lanes: int) -> bool:
    """Whether so many lanes never straddle a quotient or remainder of the index."""
    for term, _ in index.terms:
        if isinstance(term, Div | Mod) and axis in term.inner.variables():
            if term.divisor % lanes or any(isinstance(t, Div | Mod) for t, _ in term.inner.terms):
                return False
            if any(c % lanes for t, c in term.inner.terms if t is not axis and t != axis):
                return False
            if term.inner.coefficient(axis) != 1 or term.inner.constant % lanes:
                return False
    return True


class TileOperand:
    """Fetches tiles of `rows` values of the free axis by `depth` values of k.

    apart: vectors have `most` lanes though no one access brings them.  groups: for each vector that
    the thread fetches, its row and depth within the tile (i32); its lanes run along `axis`.
    inside: whether it is one of the tile's at all; None where all are.
    """

    def __init__(
        self,
        f: KernelFunction,
        kernel: ContractionKernel,
        side: Side,
        rows: int,
        depth: int,
        threads: int,
        most: int,
        apart: bool = False,
    ) -> None:
        self.f, self.kernel, self.side = f, kernel, side
        self.rows, self.depth = rows, depth
        self.axis = contiguous_axis(kernel, side)
        lanes = most if apart else vector_lanes(kernel, side, self.axis, most)
        self.lanes = lanes
        self.along_k = self.axis is kernel.k
        count = -(-rows * depth // (threads * lanes))
        thread = f.thread()
        self.groups: list[tuple[Value, Value]] = []
        self.inside: list[Value | None] = []
        for number in range(count):
            linear = f.add(thread, number * threads) if number else thread
            inside = None
            if (number + 1) * threads * lanes > rows * depth:
                inside = f.icmp("ult", linear, rows * depth // lanes)
                linear = f.select(inside, linear, const("i32", 0))
            self.inside.append(inside)
            if self.along_k:
                across = depth // lanes
                row, k = f.udiv(linear, across), self._scaled(f.urem(linear, across))
            else:
                across = rows // lanes
                row, k = self._scaled(f.urem(linear, across)), f.udiv(linear, across)
            self.groups.append((row, k))
        self.points: list[ThreadPoints] = []

    def _scaled(self, value: Value) -> Value:
        return value if self.lanes == 1 else self.f.mul(value, self.lanes)

    def start(self, batch: Value, first: Value) -> None:
        """Stands on the tile whose first row is `first`; what does not depend on k is computed."""
        f, kernel, free = self.f, self.kernel, self.side.free
        self.points = []
        last = free.extent - (1 if self.along_k else self.lanes)
        for row, _ in self.groups:
            points = make_points(f, kernel, self.axis, self.lanes)
            number = f.add(first, f.wide(row))
            if free.extent % self.rows:
                beyond = f.icmp("sgt", number, last)
                number = f.select(beyond, const(I64, last), number)
            points.bindings.update({kernel.batch: batch, free: number})
            points.hoist(self.side.values, (kernel.k,))
            self.points.append(points)

    def _at(self, points: ThreadPoints, k: Value) -> ThreadPoints:
        here = make_points(self.f, self.kernel, self.axis, self.lanes)
        here.bindings.update(points.bindings)
        here.hoisted.update(points.hoisted)
        here.bindings[self.kernel.k] = k
        return here

    def addresses(self, k0: Value) -> list[Value]:
        """Where the thread's vectors of the tile from depth k0 on lie, for an operand that is a
        plain load and a depth that divides k.
        """
        f, instr = self.f, self.kernel.values[self.side.result]
        buffer, index = instr.data
        result = []
        for (_, depth), points in zip(self.groups, self.points, strict=True):
            place = self._at(points, f.add(k0, f.wide(depth))).place(index)
            element = scalar.memory_type(instr.dtype)
            result.append(f.offset(points.pointers[buffer], place.base, element))
        return result

    def fetch(self, k0: Value, wide: DType) -> list[Value]:
        """The thread's vectors of the tile from depth k0 on, as register values of dtype `wide`."""
        f, kernel = self.f, self.kernel
        result = []
        for (_, depth), points in zip(self.groups, self.points, strict=True):
            k = f.add(k0, f.wide(depth))
            present = None
            if kernel.k.extent % self.depth:
                present = f.icmp("slt", k, kernel.k.extent)
                k = f.select(present, k, const(I64, 0))
            here = self._at(points, k)
            here.emit(self.side.values)
            held = kernel.values[self.side.result].dtype
            value = scalar.emit_cast(f, here.computed[self.side.result], held, wide)
            value = f.splat(value, self.lanes)
            if present is not None:
                value = f.select(present, value, scalar.constant(wide, 0, self.lanes))
            result.append(value)
        return result


def tile_origin(
    f: KernelFunction, kernel: ContractionKernel, rows: int, columns: int
) -> tuple[Value, Value, Value, int]:
    """(batch, first row, first column) of the block's tile as i64, and the number of blocks."""
    batch, row, column = tile_at(f, kernel, f.block(), rows, columns)
    down, right = -(-kernel.m.extent // rows), -(-kernel.n.extent // columns)
    return f.wide(batch), f.wide(row), f.wide(column), kernel.batch.extent * down * right


def tile_at(
    f: KernelFunction, kernel: ContractionKernel, block: Value, rows: int, columns: int,
    swizzle: int = 8,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """(batch, first row, first column) as i32 of the tile of a number.

    Blocks that run at the same time take tiles of neighbouring rows and columns: `swizzle` rows of
    tiles at a time, so that what they read is shared in L2.
    """
    down = -(-kernel.m.extent // rows)
    right = -(-kernel.n.extent // columns)
    batch = const("i32", 0)
    if kernel.batch.extent > 1:
        batch, block = f.udiv(block, down * right), f.urem(block, down * right)
    strip = min(swizzle, down)
    if strip == 1:
        i, j = const("i32", 0), block
        if down > 1:
            i, j = f.udiv(block, right), f.urem(block, right)
    else:
        number, inside = f.udiv(block, strip * right), f.urem(block, strip * right)
        first = f.mul(number, strip)
        tall = const("i32", strip)
        if down % strip:
            left = f.sub(const("i32", down), first)
            tall = f.select(f.icmp("slt", left, strip), left, tall)
        i, j = f.add(first, f.urem(inside, tall)), f.udiv(inside, tall)
    return batch, f.mul(i, rows), f.mul(j, columns)



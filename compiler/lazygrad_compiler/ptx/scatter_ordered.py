"""Scatters with many positions and many places (gradients of tables): positions by their places.

The number of each position's place is sorted stably (`sort.py`), so that the updates of one place
lie in a row, in the order in which they came.  A thread for each position and element looks whether
the place before is another one; if so it takes the row to its end, and writes once.  Sums have the
order of `scatter.py`'s owners, which is the CPU's: the bits are the same.

Counted for 2**20 updates of one float32 to 100,000 places: owners go through all positions in every
block, some 8,000 rounds of two barriers each; sorting is ten launches that move some 250 bytes for
each position.  A place that very many updates meet is one thread's walk either way.  Not measured
on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node, node
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.scatter import COMBINE
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.kernel import BufferRef, Launch, ScatterKernel, needed
from lazygrad_compiler.loops.lower import Group, lower_rows
from lazygrad_compiler.ptx.builder import KernelFunction, KernelModule
from lazygrad_compiler.ptx.loops import digits, make_points
from lazygrad_compiler.ptx.points import ThreadPoints
from lazygrad_compiler.ptx.sort import lower_order

THREADS = 256
FEWEST_POSITIONS = 1 << 13
"""From which on sorting is taken; below, owners have few rounds.  By counting, not by measuring."""
ATOMIC = {
    ("add", "signed"): "add", ("add", "unsigned"): "add",
    ("max", "signed"): "max", ("max", "unsigned"): "umax",
    ("min", "signed"): "min", ("min", "unsigned"): "umin",
}  # fmt: skip
"""(mode, kind of dtype) of 32 bits or more -> the atomic operation that does it."""


@dataclass(frozen=True, slots=True)
class OrderedGrid:
    """threads: of a block, one for each position and element."""

    threads: int
    way: str = "ordered"


def goes_by_owners(kernel: ScatterKernel) -> bool:
    """Whether positions may meet, and in an order that counts."""
    dtype = kernel.buffers[kernel.target].dtype
    atomic = (kernel.mode, dtype.kind) in ATOMIC and dtype.bits >= 32
    return bool(kernel.outer) and not (kernel.apart or kernel.block or atomic)


def lower_ordered(
    scatter: Node, updates: Launch, stored: Callable[[Node], bool]
) -> list[Launch]:
    """Numbers of places, their order, and the updates in it."""
    kernel = updates.kernel
    assert isinstance(kernel, ScatterKernel)
    count = scatter.inputs[2].size
    if count < FEWEST_POSITIONS or not goes_by_owners(kernel):
        return [updates]
    numbers = _place_numbers(scatter)
    group = Group("loops", [numbers], {numbers}, rows=count)
    numbered = lower_rows(group, stored)
    places, ordered_places = (temporary(numbers.dtype, (count,)) for _ in range(2))
    positions = temporary(dtypes.int64, (count,))
    arguments = tuple(places if each is numbers else each for each in numbered.arguments)
    anchor = node("argsort", places, descending=False, location=scatter.location)
    first = len(kernel.buffers)
    buffers = (BufferRef(each.dtype, count, False) for each in (positions, ordered_places))
    kernel = replace(
        kernel, buffers=(*kernel.buffers, *buffers), order=(first, first + 1)
    )
    return [
        replace(numbered, arguments=arguments, about="scatter places"),
        *lower_order(anchor, [ordered_places, positions], [True, False]),
        replace(updates, kernel=kernel,
                arguments=(*updates.arguments, positions, ordered_places)),
    ]


def _place_numbers(scatter: Node) -> Node:
    """A number for each position, the same for two that meet.  What an index out of range makes of
    it does not matter: its update reports it.
    """
    base, _, *indices = scatter.inputs
    axes = scatter.attrs[0]
    size = math.prod(base.shape[axis] for axis in axes)
    dtype = dtypes.int32 if size < 1 << 31 else dtypes.int64
    shape, where = indices[0].shape, scatter.location

    def number(value: int) -> Node:
        return node("const", value=value, dtype=dtypes.int64, shape=shape)

    total, step = None, size
    for index, axis in zip(indices, axes, strict=True):
        step //= base.shape[axis]
        from_end = node("add", index, number(base.shape[axis]))
        term = node("where", node("lt", index, number(0)), from_end, index)
        term = node("mul", term, number(step)) if step > 1 else term
        total = term if total is None else node("add", total, term)
    assert total is not None
    if dtype is not dtypes.int64:
        total = node("cast", total, dtype=dtype)
    count = math.prod(shape)
    if shape != (count,):
        return node("reshape", total, shape=(count,), location=where)
    return node("stop_gradient", total, location=where)  # an index itself is stored elsewhere


def emit_ordered(module: KernelModule, name: str, kernel: ScatterKernel) -> Emitted:
    f = module.kernel(name, len(kernel.buffers), THREADS)
    blocks = _Ordered(f, kernel).run()
    f.ret()
    return Emitted(OrderedGrid(THREADS), grid=Grid((blocks, 1, 1), (THREADS, 1, 1)))


def combined(f: KernelFunction, kernel: ScatterKernel, old: Value, update: Value) -> Value:
    """What a place holds after an update."""
    dtype = kernel.buffers[kernel.target].dtype
    if kernel.mode == "set":
        return update
    if kernel.mode == "add" and dtype.kind == "bool":
        return f.or_(old, update)
    return scalar.emit_op(f, COMBINE[kernel.mode], [old, update], dtype, dtype)


class _Ordered:
    def __init__(self, f: KernelFunction, kernel: ScatterKernel) -> None:
        self.f, self.kernel = f, kernel
        self.count = math.prod(axis.extent for axis in kernel.outer)
        self.elements = math.prod(axis.extent for axis in kernel.inner)
        assert kernel.order is not None
        self.positions, self.places = (f.parameters[number] for number in kernel.order)
        dtype = kernel.buffers[kernel.order[1]].dtype
        self.place_type, self.place_bytes = f"i{dtype.bits}", dtype.itemsize

    def run(self) -> int:
        """Emits the body; gives the number of blocks."""
        f = self.f
        number = f.add(f.mul(f.wide(f.block()), THREADS), f.wide(f.thread()))
        total = self.count * self.elements
        with f.when(f.icmp("slt", number, total), "inside"):
            rank = f.udiv(number, self.elements) if self.elements > 1 else number
            here = self._place(rank)
            before = self._place(f.select(f.icmp("sgt", rank, 0), f.sub(rank, 1), rank))
            leads = f.or_(f.icmp("eq", rank, 0), f.icmp("ne", before, here))
            with f.when(leads, "first"):
                element = {}
                if self.elements > 1:
                    rest = f.urem(number, self.elements)
                    element = digits(f, rest, self.kernel.inner, self.elements)
                self._row(rank, here, element)
        return -(-total // THREADS)

    def _place(self, rank: Value) -> Value:
        f = self.f
        return f.load(self.place_type, f.offset(self.places, rank, self.place_type),
                      self.place_bytes)

    def _points(self, rank: Value, element: dict) -> ThreadPoints:
        f = self.f
        position = f.load(I64, f.offset(self.positions, rank, I64), 8)
        points = make_points(f, self.kernel)
        points.bindings.update(digits(f, position, self.kernel.outer, self.count))
        points.bindings.update(element)
        return points

    def _row(self, first: Value, number: Value, element: dict) -> None:
        """All updates of one place, for one of its elements."""
        f, kernel = self.f, self.kernel
        dtype = kernel.buffers[kernel.target].dtype
        leader = self._points(first, element)
        leader.emit(needed(kernel.values, (), (kernel.place,)))
        pointer, place = leader.pointers[kernel.target], leader.place(kernel.place)
        old = leader.load(dtype, pointer, place, None)

        def same_place(rank: Value) -> Value:
            inside = f.icmp("slt", rank, self.count)
            return f.icmp("eq", self._place(f.select(inside, rank, first)), number)

        with f.loop(first, const(I64, self.count), 1, [old], "update", same_place) as loop:
            points = self._points(loop.index, element)
            points.emit(range(len(kernel.values)))
            held = combined(f, kernel, loop.carried[0], points.computed[kernel.update])
            # a place holds its dtype between two updates
            loop.next = [scalar.from_memory(f, scalar.to_memory(f, held, dtype), dtype)]
        leader.store(dtype, pointer, place, loop.results[0])

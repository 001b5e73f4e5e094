"""Emission of scatter kernels for a GPU: updates onto a buffer that already holds the base.

Six ways, each with one result whatever the number of blocks:

- `private`: many updates to few places (`scatter_private.py`).
- `apart`: no two positions meet (the index tells): every update by a thread of its own.
- `atomic`: integers that are added or compared: their order does not matter.
- `columns`: axes along which no two positions meet make columns; a thread applies the updates of
  its column in row-major order.
- `ordered`: the positions come sorted by their places (`scatter_ordered.py`).
- `owners`: else every place belongs to one team of threads, which applies the updates to it in
  row-major order, as the CPU does: the last `set` stays, sums have that one order.  Each block goes
  through all positions, as many at a time as it has threads; it notes those whose place is its own
  in shared memory, in order, and its teams take theirs from that list.  Reading the indices in
  every block costs little beside the updates: they stay in L2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64, dependences
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.kernel import ScatterKernel, needed
from lazygrad_compiler.ptx.builder import WARP, KernelFunction, KernelModule
from lazygrad_compiler.ptx.loops import digits, make_points
from lazygrad_compiler.ptx.points import ThreadPoints
from lazygrad_compiler.ptx.scatter_ordered import ATOMIC, combined, emit_ordered
from lazygrad_compiler.ptx.scatter_private import emit_private

MAP_THREADS = 256
OWNER_THREADS = 128
@dataclass(frozen=True, slots=True)
class ScatterGrid:
    """way: "apart", "atomic", "columns" or "owners".  threads: of a block; team: threads that a
    place belongs to; slices: blocks that share the places; tiles: blocks that share the elements of
    an update.
    """

    way: str
    threads: int
    team: int = 1
    slices: int = 1
    tiles: int = 1


def schedule_scatter(kernel: ScatterKernel, target: CudaTarget) -> ScatterGrid:
    dtype = kernel.buffers[kernel.target].dtype
    if not kernel.outer:
        return ScatterGrid("apart", MAP_THREADS)
    if (kernel.mode, dtype.kind) in ATOMIC and dtype.bits >= 32:
        return ScatterGrid("atomic", MAP_THREADS)
    if kernel.apart:
        return ScatterGrid("columns", MAP_THREADS // 2)
    elements = math.prod(axis.extent for axis in kernel.inner)
    team = 1
    while team < OWNER_THREADS and team < elements:
        team *= 2
    tiles = max(1, min(-(-elements // (4 * team)), 64))
    places = max(1, kernel.buffers[kernel.target].size // max(elements, 1))
    slices = max(1, min(2 * target.multiprocessors // tiles, places * team // OWNER_THREADS))
    return ScatterGrid("owners", OWNER_THREADS, team, slices, tiles)


def emit_scatter(
    module: KernelModule, name: str, kernel: ScatterKernel, target: CudaTarget
) -> Emitted:
    if kernel.parts > 1:
        return emit_private(module, name, kernel)
    if kernel.order is not None:
        return emit_ordered(module, name, kernel)
    if kernel.block:  # of the last axis no two positions meet; how many a CPU's task takes is moot
        apart, outer = (*kernel.apart, kernel.outer[-1]), kernel.outer[:-1]
        kernel = replace(kernel, apart=apart, outer=outer, block=0)
    schedule = schedule_scatter(kernel, target)
    f = module.kernel(name, len(kernel.buffers), schedule.threads)
    if schedule.way == "owners":
        blocks = _Owners(f, kernel, schedule).run()
    elif schedule.way == "columns":
        blocks = _columns(f, kernel, schedule)
    else:
        blocks = _one_thread_each(f, kernel, schedule)
    f.ret()
    return Emitted(schedule, grid=Grid(blocks, (schedule.threads, 1, 1)))


def _one_thread_each(
    f: KernelFunction, kernel: ScatterKernel, schedule: ScatterGrid
) -> tuple[int, int, int]:
    axes = (*kernel.apart, *kernel.outer, *kernel.inner)
    size = math.prod(axis.extent for axis in axes)
    number = f.add(f.mul(f.wide(f.block()), schedule.threads), f.wide(f.thread()))
    with f.when(f.icmp("slt", number, size), "update"):
        points = make_points(f, kernel)
        points.bindings.update(digits(f, number, axes, size))
        points.emit(range(len(kernel.values)))
        if schedule.way == "apart":
            apply(points, kernel)
        else:
            buffer = kernel.buffers[kernel.target]
            element = scalar.memory_type(buffer.dtype)
            place = points.scalar_index(kernel.place)
            address = f.offset(points.pointers[kernel.target], place, element)
            operation = ATOMIC[kernel.mode, buffer.dtype.kind]
            f.atomic(operation, address, points.computed[kernel.update])
    return (-(-size // schedule.threads), 1, 1)


def _columns(
    f: KernelFunction, kernel: ScatterKernel, schedule: ScatterGrid
) -> tuple[int, int, int]:
    axes = (*kernel.apart, *kernel.inner)
    size = math.prod(axis.extent for axis in axes)
    count = math.prod(axis.extent for axis in kernel.outer)
    number = f.add(f.mul(f.wide(f.block()), schedule.threads), f.wide(f.thread()))
    with f.when(f.icmp("slt", number, size), "column"):
        column = digits(f, number, axes, size)
        with f.loop(0, count, 1, hint="update") as update:
            points = make_points(f, kernel)
            points.bindings.update(column)
            points.bindings.update(digits(f, update.index, kernel.outer, count))
            points.emit(range(len(kernel.values)))
            apply(points, kernel)
    return (-(-size // schedule.threads), 1, 1)


def apply(points: ThreadPoints, kernel: ScatterKernel) -> None:
    """One update at the point; the index is in range by construction, `dynamic` clamps it."""
    f, dtype = points.f, kernel.buffers[kernel.target].dtype
    pointer, place = points.pointers[kernel.target], points.place(kernel.place)
    value = points.computed[kernel.update]
    if kernel.mode != "set":
        value = combined(f, kernel, points.load(dtype, pointer, place, None), value)
    points.store(dtype, pointer, place, value)


class _Owners:
    def __init__(
        self, f: KernelFunction, kernel: ScatterKernel, schedule: ScatterGrid
    ) -> None:
        self.f, self.kernel, self.s = f, kernel, schedule
        depends, inner = dependences(kernel.values), set(kernel.inner)
        numbers = range(len(kernel.values))
        self.early = [n for n in numbers if not depends[n] & inner]
        self.late = [n for n in numbers if depends[n] & inner]
        self.count = math.prod(axis.extent for axis in kernel.outer)
        self.elements = math.prod(axis.extent for axis in kernel.inner)

    def run(self) -> tuple[int, int, int]:
        """Emits the body; gives the grid: tiles, slices."""
        f, s = self.f, self.s
        self.positions = f.shared_address(f.module.shared(8 * s.threads))
        self.keys = f.shared_address(f.module.shared(8 * s.threads))
        self.counts = f.shared_address(f.module.shared(4 * s.threads // WARP))
        thread = f.thread()
        tile = f.wide(f.block())
        points = make_points(f, self.kernel)
        with f.loop(0, self.count, s.threads, hint="round") as round_:
            self._note(points, thread, round_.index)
            f.barrier()
            total = self._total()
            self._take(points, thread, tile, total)
            f.barrier()
        return (s.tiles, s.slices, 1)

    def _note(self, points: ThreadPoints, thread: Value, first: Value) -> None:
        """Puts the positions of this round that are the block's into the list, in order."""
        f, s = self.f, self.s
        position = f.add(first, f.wide(thread))
        valid = f.icmp("slt", position, self.count)
        here = self._at(points, f.select(valid, position, const(I64, 0)))
        here.active = valid
        here.emit(needed(self.kernel.values, (), (self.kernel.place,)))
        key = f.udiv(here.scalar_index(self._place_of_position()), self._unit())
        mine = f.icmp("eq", f.urem(key, s.slices), f.wide(f.block("y")))
        mine = f.and_(mine, valid)
        votes = f.ballot(mine)
        lane, warp = f.and_(thread, WARP - 1), f.lshr(thread, 5)
        with f.when(f.icmp("eq", lane, 0), "count"):
            votes_count = f.intrinsic("llvm.ctpop.i32", "i32", votes)
            f.store(votes_count, f.offset(self.counts, warp, "i32"), 4)
        f.barrier()
        before = const("i32", 0)
        for other in range(s.threads // WARP - 1):
            counted = f.load("i32", f.offset(self.counts, const("i32", other), "i32"), 4)
            earlier = f.icmp("ult", const("i32", other), warp)
            before = f.add(before, f.select(earlier, counted, const("i32", 0)))
        below = f.sub(f.shl(const("i32", 1), lane), 1)
        rank = f.add(before, f.intrinsic("llvm.ctpop.i32", "i32", f.and_(votes, below)))
        with f.when(mine, "note"):
            f.store(position, f.offset(self.positions, rank, I64), 8)
            f.store(f.udiv(key, s.slices), f.offset(self.keys, rank, I64), 8)

    def _place_of_position(self) -> Affine:
        """The place without what the elements add to it."""
        terms = tuple((t, c) for t, c in self.kernel.place.terms if t not in self.kernel.inner)
        return Affine(0, terms)

    def _unit(self) -> int:
        """What all those places are multiples of."""
        return math.gcd(*(c for _, c in self._place_of_position().terms)) or 1

    def _total(self) -> Value:
        f = self.f
        total = f.load("i32", self.counts, 4)
        for other in range(1, self.s.threads // WARP):
            total = f.add(total, f.load("i32", f.offset(self.counts, other, "i32"), 4))
        return total

    def _take(self, points: ThreadPoints, thread: Value, tile: Value, total: Value) -> None:
        """Each team goes through the list and applies what is its own."""
        f, s, teams = self.f, self.s, self.s.threads // self.s.team
        rank, team = f.wide(f.urem(thread, s.team)), f.wide(f.udiv(thread, s.team))
        with f.loop(const("i32", 0), total, 1, hint="entry") as entry:
            key = f.load(I64, f.offset(self.keys, entry.index, I64), 8)
            own = f.icmp("eq", f.urem(key, teams), team)
            with f.when(own, "own"):
                position = f.load(I64, f.offset(self.positions, entry.index, I64), 8)
                here = self._at(points, position)
                here.emit(self.early)
                if not self.kernel.inner:
                    apply(here, self.kernel)
                else:
                    self._elements(here, rank, tile)

    def _elements(self, points: ThreadPoints, rank: Value, tile: Value) -> None:
        f, s = self.f, self.s
        first = f.add(f.mul(tile, s.team), rank)
        with f.grid_stride(first, const(I64, self.elements), s.team * s.tiles, "element") as item:
            here = self._child(points)
            here.bindings.update(digits(f, item, self.kernel.inner, self.elements))
            here.emit(self.late)
            apply(here, self.kernel)

    def _at(self, points: ThreadPoints, position: Value) -> ThreadPoints:
        here = self._child(points)
        here.bindings.update(digits(self.f, position, self.kernel.outer, self.count))
        return here

    def _child(self, points: ThreadPoints) -> ThreadPoints:
        here = make_points(self.f, self.kernel)
        here.bindings.update(points.bindings)
        here.computed.update(points.computed)
        return here



"""Many updates to few places (histograms, sums of segments, gradients of small tables): each block
takes a part of the positions, and sums into copies of the target in shared memory.

A *team* has a copy for itself.  Where an update is one element, a team is a warp: it takes 32
positions at a time, and the lanes whose places meet are brought together by the first of them, in
the order of lanes.  Where an update has several elements, a team has a thread for each of them and
takes position after position; elements beyond its threads are other blocks'.  At the end a block
brings its teams' copies together, in order, and writes them as one copy of the part; a loop kernel
adds those up.  How positions are cut depends on the shapes alone, and nothing is atomic: the same
program gives the same bits.

Counted for 2**20 updates of float32 to 64 places: one team that owns the places goes through all
positions, some 2**20 steps; here a warp has 512, and some 200 instructions for 32 updates.  Not
measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64
from lazygrad_compiler.llvm.scatter import COMBINE, NEUTRAL
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.kernel import ScatterKernel
from lazygrad_compiler.loops.scatter import combines_freely
from lazygrad_compiler.ptx.builder import STATIC_SHARED_BYTES, WARP, KernelFunction, KernelModule
from lazygrad_compiler.ptx.loops import digits, make_points

FEWEST_UPDATES = 1 << 12
"""Elements of updates from which on it pays."""
MOST_PARTS = 512
FEWEST_POSITIONS = 64
"""Of a part."""
MOST_THREADS = 256
WIDEST, NARROWEST = 128, 8
"""Elements of an update that a team takes: at most, and at least if there are so many."""
AHEAD = 4
"""Updates that a thread loads before it adds the first."""


@dataclass(frozen=True, slots=True)
class PrivateGrid:
    """parts: of the positions, a block each.  tiles: of the elements, of `width` each.  team:
    threads that share a copy; teams: of a block.
    """

    parts: int
    tiles: int
    width: int
    team: int
    teams: int
    way: str = "private"

    @property
    def threads(self) -> int:
        return self.team * self.teams


def _width(places: int, elements: int, itemsize: int) -> int:
    """Elements that a team takes, so that its copy fits; 0 where it does not."""
    width = min(elements, WIDEST)
    while width * places * itemsize > STATIC_SHARED_BYTES and width > 1:
        width //= 2
    fits = width * places * itemsize <= STATIC_SHARED_BYTES
    return width if fits and width >= min(elements, NARROWEST) else 0


def scatter_parts(scatter: Node) -> int:
    """Into how many parts the updates of a scatter are cut; 1: there is no copy of the target."""
    base, updates, *indices = scatter.inputs
    if not combines_freely(scatter) or updates.size < FEWEST_UPDATES:
        return 1
    rank = indices[0].ndim
    elements = math.prod(updates.shape[rank:])
    inner = base.ndim - (updates.ndim - rank)
    if elements > 1 and any(axis >= inner for axis in scatter.attrs[0]):
        return 1  # elements of an update do not lie side by side
    places = base.size // max(elements, 1)
    if not _width(places, elements, base.dtype.itemsize):
        return 1
    parts, count = MOST_PARTS, indices[0].size
    while parts > 1 and (2 * parts * base.size > updates.size
                         or parts * FEWEST_POSITIONS > count):
        parts //= 2
    return parts


def plan(kernel: ScatterKernel) -> PrivateGrid:
    elements = math.prod(axis.extent for axis in kernel.inner)
    itemsize = kernel.buffers[kernel.target].dtype.itemsize
    places = kernel.buffers[kernel.target].size // kernel.parts // elements
    width = _width(places, elements, itemsize)
    team = WARP
    while elements > 1 and team < width:
        team *= 2
    teams = MOST_THREADS // team
    while teams > 1 and teams * width * places * itemsize > STATIC_SHARED_BYTES:
        teams //= 2
    return PrivateGrid(kernel.parts, -(-elements // width), width, team, teams)


def emit_private(module: KernelModule, name: str, kernel: ScatterKernel) -> Emitted:
    schedule = plan(kernel)
    f = module.kernel(name, len(kernel.buffers), schedule.threads)
    _Private(f, kernel, schedule).run()
    f.ret()
    grid = Grid((schedule.parts, schedule.tiles, 1), (schedule.threads, 1, 1))
    return Emitted(schedule, grid=grid)


class _Private:
    def __init__(self, f: KernelFunction, kernel: ScatterKernel, schedule: PrivateGrid) -> None:
        self.f, self.kernel, self.s = f, kernel, schedule
        self.dtype = kernel.buffers[kernel.target].dtype
        self.element, self.bytes = scalar.memory_type(self.dtype), self.dtype.itemsize
        self.elements = math.prod(axis.extent for axis in kernel.inner)
        self.size = kernel.buffers[kernel.target].size // kernel.parts
        self.places = self.size // self.elements
        self.copy_size = self.places * schedule.width
        self.count = math.prod(axis.extent for axis in kernel.outer)
        self.neutral = scalar.constant(self.dtype, NEUTRAL[kernel.mode](self.dtype))

    def run(self) -> None:
        f, s = self.f, self.s
        self.copies = f.shared_address(f.module.shared(s.teams * self.copy_size * self.bytes))
        thread = f.thread()
        everything = const("i32", s.teams * self.copy_size)
        with f.grid_stride(thread, everything, s.threads, "clear") as place:
            f.store(self.neutral, f.offset(self.copies, place, self.element), self.bytes)
        f.barrier()
        team, rank = f.lshr(thread, s.team.bit_length() - 1), f.and_(thread, s.team - 1)
        first, past = self._positions(team)
        copy = f.offset(self.copies, f.mul(team, self.copy_size), self.element)
        if self.elements == 1:
            self._one_element(copy, rank, first, past)
        else:
            self._some_elements(copy, rank, first, past)
        f.barrier()
        self._together(thread)

    def _positions(self, team: Value) -> tuple[Value, Value]:
        """The team's first position, and the one after its last."""
        f, s = self.f, self.s
        share = -(-self.count // (s.parts * s.teams))
        if self.elements == 1:
            share = -(-share // WARP) * WARP
        number = f.add(f.mul(f.wide(f.block()), s.teams), f.wide(team))
        first = self._at_most(f.mul(number, share), self.count)
        return first, self._at_most(f.add(first, share), self.count)

    def _at_most(self, value: Value, limit: int) -> Value:
        f = self.f
        return f.select(f.icmp("slt", value, limit), value, const(I64, limit))

    def _combined(self, a: Value, b: Value) -> Value:
        return scalar.emit_op(self.f, COMBINE[self.kernel.mode], [a, b], self.dtype, self.dtype)

    def _update(self, position: Value, active: Value, element: Value | None) -> tuple[Value, Value]:
        """(place, value) of the update at a position: the place's number as i32."""
        f, kernel = self.f, self.kernel
        points = make_points(f, kernel)
        points.active = active
        points.bindings.update(digits(f, position, kernel.outer, self.count))
        if element is not None:
            points.bindings.update(digits(f, element, kernel.inner, self.elements))
        points.emit(range(len(kernel.values)))
        place = f.convert("trunc", points.scalar_index(self._outer_place()), "i32")
        place = f.udiv(place, self.elements) if self.elements > 1 else place
        return place, f.select(active, points.computed[kernel.update], self.neutral)

    def _outer_place(self) -> Affine:
        place = self.kernel.place
        return Affine(
            place.constant, tuple((t, c) for t, c in place.terms if t not in self.kernel.inner)
        )

    # ---- a warp, a lane a position

    def _one_element(self, copy: Value, lane: Value, first: Value, past: Value) -> None:
        f = self.f
        with f.loop(first, past, WARP, hint="round") as round_:
            position = f.add(round_.index, f.wide(lane))
            there = f.icmp("slt", position, past)
            place, value = self._update(f.select(there, position, first), there, None)
            total, leads = self._joined(lane, f.select(there, place, const("i32", -1)), value)
            with f.when(f.and_(leads, there), "first"):
                address = f.offset(copy, place, self.element)
                self._combine_into(address, total)
            f.warp_barrier()

    def _joined(self, lane: Value, place: Value, value: Value) -> tuple[Value, Value]:
        """(what all lanes with this lane's place have together, whether it is their first)."""
        f = self.f
        total, leads = self.neutral, const("i1", 1)
        for other in range(WARP):
            number = const("i32", other)
            same = f.icmp("eq", f.shuffle_from(place, number), place)
            joined = self._combined(total, f.shuffle_from(value, number))
            total = f.select(same, joined, total)
            earlier = f.and_(same, f.icmp("ult", number, lane))
            leads = f.select(earlier, const("i1", 0), leads)
        return total, leads

    def _combine_into(self, address: Value, value: Value) -> None:
        f = self.f
        old = f.load(self.element, address, self.bytes)
        f.store(self._combined(old, value), address, self.bytes)

    # ---- a thread an element, position after position

    def _some_elements(self, copy: Value, rank: Value, first: Value, past: Value) -> None:
        f, s = self.f, self.s
        element = f.add(f.mul(f.wide(f.block("y")), s.width), f.wide(rank))
        mine = f.and_(f.icmp("ult", rank, s.width), f.icmp("slt", element, self.elements))
        with f.when(mine, "mine"), f.loop(first, past, AHEAD, hint="update") as loop:
            updates = []
            for number in range(AHEAD):
                position = f.add(loop.index, number)
                there = f.icmp("slt", position, past)
                where = f.select(there, position, first)
                updates.append((there, *self._update(where, there, element)))
            for there, place, value in updates:
                with f.when(there, "there"):
                    at = f.add(f.mul(place, s.width), rank)
                    self._combine_into(f.offset(copy, at, self.element), value)

    # ---- the block's copy

    def _together(self, thread: Value) -> None:
        f, s = self.f, self.s
        target = f.parameters[self.kernel.target]
        start = f.mul(f.wide(f.block()), self.size)
        with f.grid_stride(thread, const("i32", self.copy_size), s.threads, "place") as place:
            total: Value | None = None
            for team in range(s.teams):
                own = f.add(place, team * self.copy_size) if team else place
                value = f.load(self.element, f.offset(self.copies, own, self.element), self.bytes)
                total = value if total is None else self._combined(total, value)
            assert total is not None
            number, rank = f.udiv(place, s.width), f.urem(place, s.width)
            element = f.add(f.mul(f.wide(f.block("y")), s.width), f.wide(rank))
            with f.when(f.icmp("slt", element, self.elements), "there"):
                at = f.add(f.add(f.mul(f.wide(number), self.elements), element), start)
                f.store(total, f.offset(target, at, self.element), self.bytes)

"""Emission of a contraction kernel: tasks over blocks of strips and panels.

The scheme is described in `loops/schedule_contraction.py`; packing is in `contraction_pack.py`,
the register tiles in `contraction_tile.py`.
"""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Module, Value, const
from lazygrad_compiler.llvm.contraction_ahead import Ahead
from lazygrad_compiler.llvm.contraction_pack import emit_pack_left, emit_pack_right
from lazygrad_compiler.llvm.contraction_parts import I64, Parts, least, most
from lazygrad_compiler.llvm.contraction_tile import Shape, emit_tile
from lazygrad_compiler.llvm.loops import PARAMETERS
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import operands
from lazygrad_compiler.loops.rounding import ceil_div, round_up
from lazygrad_compiler.loops.schedule_contraction import (
    ContractionSchedule,
    Strips,
    scratch_parts,
    strip_elements,
)


def task_count(kernel: ContractionKernel, schedule: ContractionSchedule) -> int:
    _, right = operands(kernel, schedule.swapped)
    return kernel.batch.extent * _strip_tasks(schedule) * ceil_div(right.free.extent, schedule.nc)


def _strip_tasks(schedule: ContractionSchedule) -> int:
    s = schedule
    return s.blocks + ceil_div(max(s.strips - s.blocks * s.block, 0), s.tail)


def _first_rows(strips: Strips, schedule: ContractionSchedule) -> list[int]:
    """How many rows the first strip of a task has: what occurs, the more first."""
    s = schedule
    firsts = [number * s.block for number in range(s.blocks)]
    firsts += range(s.blocks * s.block, s.strips, s.tail)
    return sorted({strips.rows - (first >= strips.large) for first in firsts}, reverse=True)


def emit_contraction(
    module: Module,
    name: str,
    kernel: ContractionKernel,
    schedule: ContractionSchedule,
    attributes: str,
) -> None:
    _Blocks(module, name, kernel, schedule, attributes).run()


class _Blocks:
    def __init__(
        self,
        module: Module,
        name: str,
        kernel: ContractionKernel,
        schedule: ContractionSchedule,
        attributes: str,
    ) -> None:
        self.f = module.function(name, "void", PARAMETERS, attributes)
        self.parts = Parts(module, name, kernel, schedule, attributes)
        self.kernel, self.s = kernel, schedule
        self.args, self.begin, self.end, self.panel = self.f.parameters
        panel, strips, _ = (
            round_up(part * self.parts.itemsize, 64) + 64
            for part in scratch_parts(kernel, schedule)
        )
        self.strips = self.f.offset(self.panel, panel, "i8")
        self.tiles = self.f.offset(self.strips, strips, "i8")
        if schedule.left != "direct":
            self.pack_left = emit_pack_left(self.parts)
        if schedule.right in ("columns", "transposed"):
            self.pack_right = emit_pack_right(self.parts)
        self.ahead = Ahead(self.parts) if self.parts.fetches_strips else None
        self.tile_functions: dict[Shape, str] = {}

    def run(self) -> None:
        f, s, parts = self.f, self.s, self.parts
        n_blocks = ceil_div(parts.n.extent, s.nc)
        with f.loop(self.begin, self.end, 1, hint="task") as task:
            position = task.index
            number = f.urem(position, _strip_tasks(s))
            position = f.udiv(position, _strip_tasks(s))
            n_block = f.urem(position, n_blocks)
            self.batch = f.udiv(position, n_blocks)
            in_tail = f.icmp("sge", number, s.blocks)
            past = f.sub(number, s.blocks)
            self.s0 = f.select(
                in_tail, f.add(f.mul(past, s.tail), s.blocks * s.block), f.mul(number, s.block)
            )
            length = f.select(in_tail, const(I64, s.tail), const(I64, s.block))
            self.s1 = least(f, f.add(self.s0, length), s.strips)
            self.n0 = f.mul(n_block, s.nc)
            self._read_places()
            if self.ahead is not None:
                self.ahead.start(f, self.batch, self.s0, self.s1, self.n0)
            with f.loop(0, max(parts.k.extent, 1), s.kc, hint="k.part") as k_loop:
                self.k0 = k_loop.index
                self.k_end = least(f, f.add(self.k0, s.kc), parts.k.extent)
                self._pack_strips()
                self._panels(n_block, n_blocks)
        f.ret()

    def _read_places(self) -> None:
        """Where operands that are read in place begin, for this task's batch."""
        points = self.parts.points(self.f, None, False)
        points.bindings[self.kernel.batch] = self.batch
        self.left_base = self.right_base = self.panel
        if self.parts.left_place is not None:
            place = self.parts.left_place
            self.left_base = self.f.offset(
                points.pointers[place.buffer], points.scalar_index(place.start),
                self.parts.packed_left,
            )
        if self.parts.right_place is not None:
            place = self.parts.right_place
            self.right_base = self.f.offset(
                points.pointers[place.buffer], points.scalar_index(place.start), self.parts.element
            )

    def _pack_strips(self) -> None:
        if self.s.left != "direct":
            self.f.call(
                self.pack_left, "void", self.args, self.batch, self.s0, self.s1, self.k0,
                self.k_end, self.strips,
            )

    def _strip(self, strip: Value) -> Value:
        """Where a packed strip lies."""
        elements = strip_elements(self.kernel, self.s)
        place = self.f.mul(self.f.sub(strip, self.s0), elements)
        return self.f.offset(self.strips, place, self.parts.word)

    def _panels(self, n_block: Value, n_blocks: int) -> None:
        """All panels of the task: the whole ones, then the one at the end of the rows."""
        f, s, n = self.f, self.s, self.parts.n.extent
        whole = n // s.nr * s.nr
        if whole:
            end = least(f, f.add(self.n0, s.nc), whole)
            with f.loop(self.n0, end, s.nr, hint="panel") as loop:
                self._panel(loop.index, s.vectors, s.lanes)
        if whole < n:
            vectors = ceil_div(n - whole, s.lanes)
            with f.when(f.icmp("eq", n_block, n_blocks - 1), "last"):
                self._panel(const(I64, whole), vectors, n - whole - (vectors - 1) * s.lanes)

    def _panel(self, n: Value, vectors: int, last: int) -> None:
        f, strips = self.f, self.parts.strips
        right, first = self._right(n), self.s0
        if self.s.right == "passing":
            for rows in _first_rows(strips, self.s):
                wanted = f.icmp("slt" if rows == strips.rows else "sge", first, strips.large)
                with f.when(wanted, "first"):
                    self._tile_of(first, n, right, Shape(rows, vectors, last, packs=True))
            if not self.s.keeps_panels:
                return
            first = f.add(first, 1)
        for begin, end, rows in (
            (first, least(f, self.s1, strips.large), strips.rows),
            (most(f, first, strips.large), self.s1, strips.rows - 1),
        ):
            if rows < strips.rows and strips.large == strips.count:
                continue
            with f.loop(begin, end, 1, hint="strip") as loop:
                self._tile_of(loop.index, n, right, Shape(rows, vectors, last))

    def _tile_of(self, strip: Value, n: Value, right: Value, shape: Shape) -> None:
        f, parts = self.f, self.parts
        count = parts.words(f, f.sub(self.k_end, self.k0))
        m = parts.row_of(f, strip)
        ahead: tuple[Value, ...] = ()
        if self.ahead is not None:
            ahead = self.ahead.of_tile(f, strip, n, self.k0, right)
        f.call(
            self._tile_function(shape), "void", self.args, self._left(strip, m), right,
            self._tile(strip, n), count, self.batch, m, n, self.k0, *ahead,
        )

    def _tile_function(self, shape: Shape) -> str:
        if shape not in self.tile_functions:
            self.tile_functions[shape] = emit_tile(self.parts, shape)
        return self.tile_functions[shape]

    def _right(self, n: Value) -> Value:
        """The panel's first element in this part of k; packed first where it has to be, unless
        its first tile does that.
        """
        f, parts = self.f, self.parts
        place = parts.right_place
        if place is not None:
            index = f.add(f.mul(self.k0, place.k_step), n)
            if place.width:
                # n is the first column of a tile, and tiles do not reach over the end of a panel
                index = f.add(index, f.mul(f.udiv(n, place.width), place.panel_step - place.width))
            return f.offset(self.right_base, index, parts.element)
        if self.s.right != "passing":
            f.call(
                self.pack_right, "void", self.args, self.batch, n, self.k0, self.k_end, self.panel
            )
        return self.panel

    def _left(self, strip: Value, m: Value) -> Value:
        f, place = self.f, self.parts.left_place
        if place is None:
            return self._strip(strip)
        index = f.add(f.mul(m, place.free_step), f.mul(self.k0, place.k_step))
        return f.offset(self.left_base, index, self.parts.packed_left)

    def _tile(self, strip: Value, n: Value) -> Value:
        """Where the tile's sums rest."""
        f, parts = self.f, self.parts
        if parts.single:
            return self.tiles
        rows = parts.strips.rows
        before = f.mul(f.sub(strip, self.s0), rows * self.s.nc)
        inside = f.mul(f.sub(n, self.n0), rows)
        return f.offset(self.tiles, f.add(before, inside), parts.element)

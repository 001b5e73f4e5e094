"""Packing of a contraction's operands: a panel of the right one, a strip of the left one.

The values are computed through the index expressions of the loop IR, so a convolution's patches are
gathered straight from the image, and casts or scalings fuse into packing; there is no im2col
buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lazygrad_compiler.llvm.builder import Function, Value, const
from lazygrad_compiler.llvm.contraction_parts import I64, Parts, least, most
from lazygrad_compiler.llvm.contraction_runs import Runs, pack_columns, pack_row
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.llvm.transpose import transpose
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.operands import in_phase, quotient_of
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.loops.schedule_contraction import strip_elements, strip_steps


def emit_pack_right(parts: Parts) -> str:
    """A function that packs k0..k_end-1 of the panel of nr columns from n on: k by k."""
    f = parts.function("pack_right", ["batch", "n", "k0", "k_end", "*panel"])
    _RightPacker(parts, f).run()
    return f.name


class _RightPacker:
    def __init__(self, parts: Parts, f: Function) -> None:
        self.parts, self.f = parts, f
        self.s, self.n, self.k = parts.s, parts.n, parts.k
        self.batch, self.n0, self.k0, self.k_end, self.panel = f.parameters[1:]

    def run(self) -> None:
        f, s, parts = self.f, self.s, self.parts
        if s.right == "columns" and s.phases == 1:
            self._panel()
        else:
            self._vectors()
        if parts.form.flipped:
            count = parts.words(f, f.sub(self.k_end, self.k0))
            parts.sum_columns(f, self.panel, count)
        f.ret()

    def _vectors(self) -> None:
        """The panel a vector of columns at a time."""
        f, s, parts = self.f, self.s, self.parts
        with f.loop(0, s.nr, s.lanes, hint="vector") as vector_loop:
            n = f.add(self.n0, vector_loop.index)
            column = f.offset(self.panel, vector_loop.index, parts.word)
            if s.right == "transposed" and s.run > 1:
                last = self.n.extent - 1
                columns = [least(f, f.add(n, lane), last) for lane in range(s.lanes)]
                runs = Runs(parts, parts.right)
                pack_columns(runs, f, self.batch, columns, self.k0, self.k_end, column)
            elif s.right == "transposed":
                self._transposed(n, column)
            elif parts.single or s.kc % s.phases == 0:
                self._phases(n, column)
            else:
                self._columns([n], [column], True)

    def _panel(self) -> None:
        """All columns side by side, so that whole rows of the panel are read and written; masks
        only where the panel ends beyond the operand.
        """
        f, s, parts = self.f, self.s, self.parts
        offsets = range(0, s.nr, s.lanes)
        numbers = [f.add(self.n0, offset) for offset in offsets]
        columns = [f.offset(self.panel, offset, parts.word) for offset in offsets]
        if self.n.extent % s.nr == 0:
            self._columns(numbers, columns, False)
            return
        if self.n.extent < s.nr:
            self._columns(numbers, columns, True)
            return
        whole = f.icmp("sle", f.add(self.n0, s.nr), self.n.extent)
        with f.when(whole, "whole"):
            self._columns(numbers, columns, False)
        with f.when(f.not_(whole), "part"):
            self._columns(numbers, columns, True)

    def _bind(self, points: Points, n: Value, masked: bool) -> None:
        points.bindings.update({self.parts.kernel.batch: self.batch, self.n: n})
        if masked and self.n.extent % self.s.nr:
            left = self.f.sub(const(I64, self.n.extent), n)
            points.active = self.parts.first_lanes(self.f, left, self.s.lanes)

    def _columns(self, numbers: list[Value], columns: list[Value], masked: bool) -> None:
        """`lanes` columns from each of the numbers on, word after word along k."""
        f, parts = self.f, self.parts
        early = [number for number in parts.right.values if self.k not in parts.depends[number]]
        late = [number for number in parts.right.values if number not in early]
        ready = []
        for n in numbers:
            points = parts.points(f, self.n, True)
            self._bind(points, n, masked)
            points.emit(early)
            points.hoist(late, [self.k])
            ready.append((points, dict(points.computed)))

        def pack(k: Value, count: int) -> None:
            """The words whose first `count` elements are at k and behind it."""
            place = f.mul(parts.words(f, f.sub(k, self.k0)), self.s.nr)
            for (points, before), column in zip(ready, columns, strict=True):
                values = []
                for step in range(count):
                    points.bindings[self.k] = f.add(k, step) if step else k
                    points.computed = dict(before)
                    points.emit(late)
                    values.append(parts.packed(points, parts.right))
                word_vector = parts.woven(f, values)
                f.store(word_vector, f.offset(column, place, parts.word), parts.itemsize)

        for_each_word(parts, f, self.k0, self.k_end, pack)

    def _phases(self, n: Value, column: Value) -> None:
        """`lanes` columns, as many values of k at a time as there are phases."""
        f, s, parts = self.f, self.s, self.parts
        quotient = quotient_of(self.k, s.phases)
        ready: list[tuple[Points, list[int]]] = []
        for phase in range(s.phases):
            values = list(parts.kernel.values)
            for number in parts.right.values:
                instr = values[number]
                data = tuple(
                    in_phase(item, self.k, s.phases, phase) if isinstance(item, Affine) else item
                    for item in instr.data
                )
                values[number] = replace(instr, data=data)
            points = parts.points(f, self.n, True)
            points.values = tuple(values)
            self._bind(points, n, True)
            depends = dependences(values)
            late = [number for number in parts.right.values if quotient in depends[number]]
            points.emit(number for number in parts.right.values if number not in late)
            points.hoist(late, [quotient])
            ready.append((points, late))
        begin, end = f.udiv(self.k0, s.phases), f.udiv(self.k_end, s.phases)
        with f.loop(begin, end, 1, hint="k") as loop:
            row = parts.words(f, f.sub(f.mul(loop.index, s.phases), self.k0))
            target = f.offset(column, f.mul(row, s.nr), parts.word)
            word: list[Value] = []
            for phase, (points, late) in enumerate(ready):
                before = dict(points.computed)
                points.bindings[quotient] = loop.index
                points.emit(late)
                word.append(parts.packed(points, parts.right))
                points.computed = before
                if len(word) == parts.group:
                    place = f.offset(target, phase // parts.group * s.nr, parts.word)
                    f.store(parts.woven(f, word), place, parts.itemsize)
                    word = []

    def _transposed(self, n: Value, column: Value) -> None:
        """`lanes` columns, read along k and transposed in registers, `lanes` words of each at a
        time.
        """
        f, s, parts = self.f, self.s, self.parts
        with f.loop(self.k0, self.k_end, parts.along, hint="k") as loop:
            active = (
                parts.first_lanes(f, f.sub(self.k_end, loop.index), parts.along)
                if parts.has_partial_vector
                else None
            )
            rows = []
            for lane in range(s.lanes):
                points = parts.points(f, self.k, False, parts.along)
                number = least(f, f.add(n, lane), self.n.extent - 1)
                points.bindings.update(
                    {parts.kernel.batch: self.batch, self.n: number, self.k: loop.index}
                )
                points.active = active
                points.emit(parts.right.values)
                rows.append(parts.along_k(points, parts.right))
            row = f.mul(parts.words(f, f.sub(loop.index, self.k0)), s.nr)
            target = f.offset(column, row, parts.word)
            for lane, words in enumerate(transpose(f, rows)):
                f.store(words, f.offset(target, lane * s.nr, parts.word), parts.itemsize)


def emit_pack_left(parts: Parts) -> str:
    """A function that packs k0..k_end-1 of the strips s0..s1-1 of the left operand.

    A row beyond the end repeats the last one; it belongs to no tile.
    """
    f = parts.function("pack_left", ["batch", "s0", "s1", "k0", "k_end", "*strips"])
    (_pack_rows if parts.s.left == "rows" else _pack_columns)(parts, f)
    f.ret()
    return f.name


def _pack_rows(parts: Parts, f: Function) -> None:
    """Row by row, along k."""
    batch, s0, s1, k0, k_end, strips = f.parameters[1:]
    free_step, _ = strip_steps(parts.kernel, parts.s)
    extent, packed = parts.m.extent, parts.packed_left
    with (
        f.loop(s0, s1, 1, hint="strip") as strip_loop,
        f.loop(0, parts.strips.rows, 1, hint="row") as row_loop,
    ):
        m = parts.row_of(f, strip_loop.index)
        row = least(f, f.add(m, row_loop.index), extent - 1)
        strip = _strip(parts, f, strips, f.sub(strip_loop.index, s0))
        target = f.offset(strip, f.mul(row_loop.index, free_step), parts.word)
        if parts.s.run > 1:
            pack_row(Runs(parts, parts.left), f, batch, row, k0, k_end, target)
        else:
            with f.loop(k0, k_end, parts.along, hint="k") as loop:
                points = parts.points(f, parts.k, False, parts.along)
                if parts.has_partial_vector:
                    points.active = parts.first_lanes(f, f.sub(k_end, loop.index), parts.along)
                points.bindings.update(
                    {parts.kernel.batch: batch, parts.m: row, parts.k: loop.index}
                )
                points.emit(parts.left.values)
                place = f.offset(target, f.sub(loop.index, k0), packed)
                f.store(parts.along_k(points, parts.left), place, parts.form.left.itemsize)


def _pack_columns(parts: Parts, f: Function) -> None:
    """Word by word along k through all strips, so that memory is read in order.

    A strip's rows may be fewer than the lanes: what is written beyond them, the next word
    overwrites.
    """
    batch, s0, s1, k0, k_end, strips = f.parameters[1:]
    _, k_step = strip_steps(parts.kernel, parts.s)
    lanes, extent, rows = parts.s.lanes, parts.m.extent, parts.strips.rows
    # strips whose vectors all end within the rows
    whole = sum(
        parts.strips.begin(strip) + round_up(rows, lanes) <= extent
        for strip in range(parts.s.strips)
    )

    def pack_word(k: Value, count: int) -> None:
        offset = f.mul(parts.words(f, f.sub(k, k0)), k_step)

        def pack(strip: Value, masked: bool) -> None:
            m = parts.row_of(f, strip)
            target = f.offset(_strip(parts, f, strips, f.sub(strip, s0)), offset, parts.word)
            for begin in range(0, rows, lanes):
                row, values = f.add(m, begin), []
                for step in range(count):
                    points = parts.points(f, parts.m, False)
                    if masked:
                        points.active = parts.first_lanes(f, f.sub(const(I64, extent), row), lanes)
                    points.bindings.update(
                        {parts.kernel.batch: batch, parts.m: row, parts.k: f.add(k, step)}
                    )
                    points.emit(parts.left.values)
                    values.append(parts.packed(points, parts.left))
                f.store(
                    parts.woven(f, values), f.offset(target, begin, parts.word), parts.itemsize
                )

        with f.loop(s0, least(f, s1, whole), 1, hint="strip") as strip_loop:
            pack(strip_loop.index, False)
        with f.loop(most(f, s0, whole), s1, 1, hint="strip") as strip_loop:
            pack(strip_loop.index, True)

    for_each_word(parts, f, k0, k_end, pack_word)


def for_each_word(
    parts: Parts, f: Function, k0: Value, k_end: Value, pack: Callable[[Value, int], None]
) -> None:
    """Calls `pack` in a loop over the words of a part of k, with where one begins and how many
    elements it has; and for the last word of k where that is not full.
    """
    short = parts.k.extent % parts.group
    end = least(f, k_end, parts.k.extent - short) if short else k_end
    with f.loop(k0, end, parts.group, hint="k") as loop:
        pack(loop.index, parts.group)
    if short:
        with f.when(f.icmp("eq", k_end, parts.k.extent), "short"):
            pack(const(I64, parts.k.extent - short), short)


def _strip(parts: Parts, f: Function, strips: Value, number: Value) -> Value:
    elements = strip_elements(parts.kernel, parts.s)
    return f.offset(strips, f.mul(number, elements), parts.word)

"""Register tiles of a contraction: the micro-kernel, and the epilogue on its sums.

A tile is a function of its own, so that its sums have all registers to themselves.  Light epilogues
(a bias, an activation of a few instructions, a residual) are computed on the sums in registers,
whose places are fixed steps from the tile's first element.  All others read them back from scratch
memory, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Function, Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.contraction_parts import I64, Parts
from lazygrad_compiler.llvm.contraction_passing import Passing
from lazygrad_compiler.llvm.contraction_words import add_products, rounded
from lazygrad_compiler.llvm.points import Place, Points
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.operands import is_regular
from lazygrad_compiler.loops.schedule import instr_cost
from lazygrad_compiler.loops.schedule_contraction import strip_steps

UNROLLED_SUMS = 112
"""Multiply-adds in one turn of the micro-kernel's loop: enough to hide its control."""
FLIP = 0x80808080
"""The highest bits of four bytes."""
LIGHT = 250
"""Instructions of an epilogue that are worth repeating for every vector of a tile."""


@dataclass(frozen=True, slots=True)
class Shape:
    """rows x vectors; last: active lanes of the last vector.  packs: it is the first tile that
    multiplies by a panel, and packs it in passing.
    """

    rows: int
    vectors: int
    last: int
    packs: bool = False


def emit_tile(parts: Parts, shape: Shape) -> str:
    """A function that adds `count` words from k0 on to one tile: left and right point to its first
    elements there, `tile` to where its sums rest between parts of k.
    """
    label = f"tile_{shape.rows}x{shape.vectors}_{shape.last}{'_packing' * shape.packs}"
    ahead = ["*ahead", "ahead_step"] if parts.fetches_strips else []
    f = parts.function(
        label, ["*left", "*right", "*tile", "count", "batch", "m", "n", "k0", *ahead]
    )
    _Tile(parts, shape, f).run()
    return f.name


class _Tile:
    def __init__(self, parts: Parts, shape: Shape, f: Function) -> None:
        self.parts, self.shape, self.f, self.s = parts, shape, f, parts.s
        (_, self.left, self.right, self.tile, self.count, self.batch, self.m, self.n, self.k0) = (
            f.parameters[:9]
        )
        self.ahead = f.parameters[9:]
        self.vector = vector_of(parts.element, self.s.lanes)
        self.words = vector_of(parts.word, self.s.lanes)
        self.size = shape.rows * shape.vectors
        if parts.left_place is not None:
            steps = parts.left_place.free_step, parts.left_place.k_step * parts.group
            self.left_steps, self.left_element = steps, parts.packed_left
        else:
            self.left_steps = strip_steps(parts.kernel, parts.s)
            self.left_element = parts.word
        self.right_step = parts.right_place.k_step if parts.right_place is not None else self.s.nr
        whole = shape.last == self.s.lanes
        self.mask = (
            None
            if whole
            else const_lanes("i1", [lane < shape.last for lane in range(self.s.lanes)])
        )
        self.passing = (
            Passing(parts, f, shape.vectors, self.mask, self.batch, self.n)
            if shape.packs
            else None
        )

    def run(self) -> None:
        f, parts, shape = self.f, self.parts, self.shape
        totals = self._micro_kernel(self._begin())
        if shape.packs and parts.form.flipped:  # known only now
            parts.sum_columns(f, self.right, self.count)
            firsts = self._first_sums()
            totals = [f.add(total, first) for total, first in zip(totals, firsts, strict=True)]
        light = self._is_light()
        if parts.single:
            if not light:
                self._rest(totals)
            self._epilogue(totals, light)
        else:
            last = f.icmp("sge", f.add(self.k0, self.s.kc), parts.k.extent)
            if light:
                done, go_on = f.new_block("done"), f.new_block("go_on")
                f.branch_if(last, done, go_on)
                f.start_block(go_on)
                self._rest(totals)
                f.ret()
                f.start_block(done)
                self._epilogue(totals, light)
            else:
                self._rest(totals)
                with f.when(last, "done"):
                    self._epilogue(totals, light)
        f.ret()

    # ---- sums in registers and at rest

    def _resting_place(self, number: int) -> Value:
        return self.f.offset(self.tile, number * self.s.lanes, self.parts.element)

    def _rest(self, totals: list[Value]) -> None:
        for number, total in enumerate(totals):
            self.f.store(total, self._resting_place(number), self.parts.itemsize)

    def _begin(self) -> list[Value]:
        """Zeros, or the sums of the parts of k before; and what the form starts from."""
        f, sums = self.f, self._sums_before()
        if self.parts.form.flipped and not self.shape.packs:
            firsts = self._first_sums()
            sums = [f.add(total, first) for total, first in zip(sums, firsts, strict=True)]
        return sums

    def _first_sums(self) -> list[Value]:
        """Of a form that takes signed bytes for unsigned; the panel has them."""
        f, parts, s, shape = self.f, self.parts, self.s, self.shape
        behind = f.offset(self.right, s.words(s.kc) * s.nr, parts.word)
        columns = [
            f.load(self.vector, f.offset(behind, v * s.lanes, parts.word), parts.itemsize)
            for v in range(shape.vectors)
        ]
        return columns * shape.rows

    def _sums_before(self) -> list[Value]:
        f, zero = self.f, const(self.vector, 0)
        if self.parts.single:
            return [zero] * self.size
        before = f.label
        resume, start = f.new_block("resume"), f.new_block("start")
        f.branch_if(f.icmp("eq", self.k0, 0), start, resume)
        f.start_block(resume)
        rested = [
            f.load(self.vector, self._resting_place(number), self.parts.itemsize)
            for number in range(self.size)
        ]
        f.branch(start)
        f.start_block(start)
        return [f.phi(self.vector, [(zero, before), (value, resume)]) for value in rested]

    # ---- the micro-kernel

    def _micro_kernel(self, start: list[Value]) -> list[Value]:
        f, k, kc = self.f, self.s.words(self.parts.k.extent), self.s.words(self.s.kc)
        unroll = 1
        while unroll < 8 and 2 * unroll * self.size <= UNROLLED_SUMS and 2 * unroll <= k:
            unroll *= 2
        if k % unroll == 0 and (self.parts.single or kc % unroll == 0):
            return self._k_loop(const(I64, 0), self.count, unroll, start)
        whole = f.mul(f.udiv(self.count, unroll), unroll)
        main = self._k_loop(const(I64, 0), whole, unroll, start)
        return self._k_loop(whole, self.count, 1, main)

    def _k_loop(self, begin: Value, end: Value, unroll: int, start: list[Value]) -> list[Value]:
        f, shape, parts = self.f, self.shape, self.parts
        itemsize = parts.form.left.itemsize if parts.left_place else parts.itemsize
        free_step, k_step = self.left_steps
        left_line, right_line = (
            "contraction" if place is None else f"%{operand.value}"
            for operand, place in ((parts.left, parts.left_place), (parts.right, parts.right_place))
        )
        with f.loop(begin, end, unroll, start, "k") as loop:
            sums = list(loop.carried)
            right = f.offset(self.right, f.mul(loop.index, self.right_step), parts.word)
            left = f.offset(self.left, f.mul(loop.index, k_step), self.left_element)
            if self.ahead:
                first, ahead_step = self.ahead
                line = f.offset(first, f.mul(loop.index, ahead_step), "i8")
            for step in range(unroll):
                if self.ahead:
                    f.prefetch(line, level=2)
                    line = f.offset(line, ahead_step, "i8")
                f.origin(right_line)
                if parts.fetches_in_place:
                    beside = f.offset(left, shape.rows + step * k_step, self.left_element)
                    f.prefetch(beside, level=2)
                row_of_panel = f.offset(right, step * self.right_step, parts.word)
                columns = self._columns(f.add(loop.index, step), row_of_panel)
                for row in range(shape.rows):
                    f.origin(left_line)
                    place = f.offset(left, row * free_step + step * k_step, self.left_element)
                    factor = f.splat(f.load(parts.word, place, itemsize), self.s.lanes)
                    if parts.form.flipped:
                        factor = f.xor(factor, const(self.words, FLIP))
                    f.origin("contraction")
                    for v, column in enumerate(columns):
                        at = row * shape.vectors + v
                        sums[at] = add_products(
                            f, parts.form.instruction, sums[at], factor, column
                        )
            f.origin("")
            loop.next = sums
        return loop.results

    def _columns(self, word: Value, row_of_panel: Value) -> list[Value]:
        """The right operand's vectors for a word along k."""
        f, parts, s, vectors = self.f, self.parts, self.s, self.shape.vectors
        if self.passing is not None:
            k = f.add(self.k0, f.mul(word, parts.group))
            is_read_again = s.keeps_panels or parts.form.flipped
            return self.passing.words(k, row_of_panel if is_read_again else None)
        places = [f.offset(row_of_panel, v * s.lanes, parts.word) for v in range(vectors)]
        return [self._column(place, v == vectors - 1) for v, place in enumerate(places)]

    def _column(self, place: Value, is_last: bool) -> Value:
        """A vector of the right operand; where it lies in place, nothing beyond its end is read."""
        f, itemsize = self.f, self.parts.itemsize
        if self.parts.right_place is None or self.mask is None or not is_last:
            return f.load(self.words, place, itemsize)
        return f.masked_load(self.words, place, itemsize, self.mask, const(self.words, 0))

    # ---- what follows

    def _is_light(self) -> bool:
        """Whether the epilogue is short, and its places lie a fixed step apart."""
        kernel = self.parts.kernel
        epilogue = kernel.epilogue
        if any(kernel.values[number].op == "dynamic" for number in epilogue.values):
            return False  # an index that is read is another one for each row and vector
        cost = sum(instr_cost(kernel.values[number]) for number in epilogue.values)
        cost += len(epilogue.stores)
        indices = [store.index for store in epilogue.stores]
        for number in epilogue.values:
            indices += [item for item in kernel.values[number].data if isinstance(item, Affine)]
        return cost * self.size <= LIGHT and is_regular(indices, [self.parts.m, self.parts.n])

    def _epilogue(self, totals: list[Value], light: bool) -> None:
        shape = self.shape
        if light:
            origin = self._at(self.m, self.n, None)
            shared = _Shared(self.parts, origin)
            for row in range(shape.rows):
                for v in range(shape.vectors):
                    points = shared.at(row, v, self.mask if v == shape.vectors - 1 else None)
                    self._finish(points, totals[row * shape.vectors + v])
            return
        f, parts = self.f, self.parts
        with f.loop(0, shape.rows, 1, hint="row") as row_loop:
            m = f.add(self.m, row_loop.index)
            first = f.mul(row_loop.index, shape.vectors * self.s.lanes)
            for v in range(shape.vectors):
                place = f.offset(self.tile, f.add(first, v * self.s.lanes), parts.element)
                total = f.load(self.vector, place, parts.itemsize)
                mask = self.mask if v == shape.vectors - 1 else None
                self._finish(self._at(m, f.add(self.n, v * self.s.lanes), mask), total)

    def _at(self, m: Value, n: Value, mask: Value | None) -> Points:
        parts = self.parts
        points = parts.points(self.f, parts.n, True)
        points.bindings.update({parts.kernel.batch: self.batch, parts.m: m, parts.n: n})
        points.active = mask
        return points

    def _finish(self, points: Points, total: Value) -> None:
        """The epilogue for one vector of sums."""
        f, kernel, epilogue = self.f, self.parts.kernel, self.parts.kernel.epilogue
        result = rounded(f, self.parts.form.instruction, total) if kernel.dtype.bits == 16 else None
        if result is None:
            result = scalar.emit_cast(f, total, self.parts.wide, kernel.dtype)
        for number in epilogue.values:
            if kernel.values[number].op == "accumulator":
                points.computed[number] = result
        points.emit(epilogue.values)
        for store in epilogue.stores:
            f.origin(f"b{store.buffer}")
            points.store(
                kernel.buffers[store.buffer].dtype,
                points.pointers[store.buffer],
                points.place(store.index),
                points.computed[store.value],
            )
        f.origin("")


class _Shared:
    """Points of a tile that share what does not change along its rows, or its columns."""

    def __init__(self, parts: Parts, origin: Points) -> None:
        self.parts, self.origin = parts, origin
        self.places: dict[Affine, Place] = {}
        values, depends = parts.kernel.values, parts.depends
        from_sum: set[int] = set()
        for number in parts.kernel.epilogue.values:
            instr = values[number]
            if instr.op == "accumulator" or from_sum & set(instr.args):
                from_sum.add(number)
        fixed = [n for n in parts.kernel.epilogue.values if n not in from_sum]
        self.by_column = [n for n in fixed if parts.m not in depends[n]]
        self.by_row = [n for n in fixed if parts.n not in depends[n] and n not in self.by_column]
        self.columns: dict[int, dict[int, Value]] = {}
        self.rows: dict[int, dict[int, Value]] = {}

    def at(self, row: int, v: int, mask: Value | None) -> Points:
        points = _Shifted(self, row, v)
        points.active = mask
        for kept, key, numbers in (
            (self.columns, v, self.by_column), (self.rows, row, self.by_row),
        ):
            if key in kept:
                points.computed.update(kept[key])
            else:
                points.emit(numbers)
                kept[key] = {number: points.computed[number] for number in numbers}
        return points


class _Shifted(Points):
    """Points some rows and vectors beyond others, to which all index expressions refer."""

    def __init__(self, shared: _Shared, row: int, v: int) -> None:
        origin = shared.origin
        super().__init__(
            origin.f, origin.values, origin.pointers, origin.error, origin.vector, origin.lanes,
            origin.aligned,
        )
        self.bindings = origin.bindings
        self.shared, self.row, self.v = shared, row, v

    def place(self, value: Affine) -> Place:
        places, parts = self.shared.places, self.shared.parts
        if value not in places:
            places[value] = self.shared.origin.place(value)
        first = places[value]
        shift = self.row * value.coefficient(parts.m)
        shift += self.v * self.lanes * value.coefficient(parts.n)
        if not shift:
            return first
        return Place(self.f.add(first.base, shift), first.pattern, first.offsets, 1)

"""Emission of a contraction kernel: tasks over blocks, packing, micro-kernel, epilogue.

The scheme is described in `loops/schedule_contraction.py`.  Packing reads its operand through the
index expressions of the loop IR, so a convolution's patches are gathered straight from the image,
and casts or scalings fuse into it; there is no im2col buffer.
"""

from __future__ import annotations

from dataclasses import replace

from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Function, Module, Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Affine, Var
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.schedule_contraction import (
    ContractionSchedule,
    accumulator_dtype,
    in_phase,
    quotient_of,
    round_up,
    scratch_parts,
)

I64 = "i64"


def task_count(kernel: ContractionKernel, schedule: ContractionSchedule) -> int:
    m, n = (kernel.n, kernel.m) if schedule.swapped else (kernel.m, kernel.n)
    return kernel.batch.extent * -(-m.extent // schedule.mc) * -(-n.extent // schedule.nc)


def emit_contraction(
    module: Module,
    name: str,
    kernel: ContractionKernel,
    schedule: ContractionSchedule,
    attributes: str,
) -> None:
    _Emitter(module, name, kernel, schedule, attributes).run()


class _Emitter:
    def __init__(
        self,
        module: Module,
        name: str,
        kernel: ContractionKernel,
        schedule: ContractionSchedule,
        attributes: str,
    ) -> None:
        self.f = module.function(name, "void", PARAMETERS, attributes)
        self.kernel = kernel
        self.s = schedule
        self.wide = accumulator_dtype(kernel.dtype)
        self.element = scalar.register_type(self.wide)
        self.itemsize = self.wide.itemsize
        self.depends = dependences(kernel.values)
        if schedule.swapped:
            self.m, self.n = kernel.n, kernel.m
            self.left, self.right = kernel.right, kernel.left
            self.left_values, self.right_values = kernel.right_values, kernel.left_values
        else:
            self.m, self.n = kernel.m, kernel.n
            self.left, self.right = kernel.left, kernel.right
            self.left_values, self.right_values = kernel.left_values, kernel.right_values
        self.pointers, self.error = load_arguments(self.f, len(kernel.buffers))
        panel, strip, _ = scratch_parts(kernel, schedule)
        scratch = self.f.parameters[3]
        self.panels = scratch
        self.strip = self.f.offset(scratch, round_up(panel * self.itemsize, 64) + 64, "i8")
        self.tiles = self.f.offset(self.strip, round_up(strip * self.itemsize, 64) + 64, "i8")
        self.panel_rows = round_up(schedule.kc, schedule.lanes) + schedule.lanes
        self.row_stride = schedule.kc + schedule.lanes
        self.k_stride = round_up(schedule.mr, schedule.lanes)
        self.single = kernel.k.extent <= schedule.kc
        # some part of k does not end with a whole vector
        self.has_partial_vector = bool(
            kernel.k.extent % schedule.lanes or (not self.single and schedule.kc % schedule.lanes)
        )

    # ---- the loops over blocks

    def run(self) -> None:
        f, s = self.f, self.s
        _, begin, end, _ = f.parameters
        m_blocks, n_blocks = -(-self.m.extent // s.mc), -(-self.n.extent // s.nc)
        with f.loop(begin, end, 1, hint="task") as task:
            position = task.index
            m_block = f.urem(position, m_blocks)
            position = f.udiv(position, m_blocks)
            n_block = f.urem(position, n_blocks)
            batch = f.udiv(position, n_blocks)
            m0, n0 = f.mul(m_block, s.mc), f.mul(n_block, s.nc)
            m_end, n_end = (
                self._least(f.add(m0, s.mc), self.m.extent),
                self._least(f.add(n0, s.nc), self.n.extent),
            )
            with f.loop(0, max(self.kernel.k.extent, 1), s.kc, hint="k.block") as k_loop:
                k0 = k_loop.index
                k_end = self._least(f.add(k0, s.kc), self.kernel.k.extent)
                count = f.sub(k_end, k0)
                self._pack_right(batch, n0, n_end, k0, k_end)
                with f.loop(m0, m_end, s.mr, hint="strip") as strip_loop:
                    self._pack_left(batch, strip_loop.index, m_end, k0, k_end)
                    with f.loop(n0, n_end, s.nr, hint="panel") as panel_loop:
                        self._tile(
                            batch,
                            m0,
                            n0,
                            strip_loop.index,
                            panel_loop.index,
                            m_end,
                            n_end,
                            k0,
                            count,
                        )
        f.ret()

    def _least(self, value: Value, limit: int) -> Value:
        return self.f.select(self.f.icmp("slt", value, limit), value, const(I64, limit))

    def _points(self, vector: Var | None, aligned: bool) -> Points:
        return Points(
            self.f, self.kernel.values, self.pointers, self.error, vector, self.s.lanes, aligned
        )

    def _widened(self, points: Points, number: int) -> Value:
        """The operand's value as the dtype that is summed in, one a lane."""
        value = points.computed[number]
        value = scalar.emit_cast(self.f, value, self.kernel.dtype, self.wide)
        return self.f.splat(value, points.lanes)

    # ---- packing

    def _pack_right(self, batch: Value, n0: Value, n_end: Value, k0: Value, k_end: Value) -> None:
        f, s = self.f, self.s
        with f.loop(n0, n_end, s.nr, hint="pack.panel") as panel_loop:
            start = f.mul(f.sub(panel_loop.index, n0), self.panel_rows)
            panel = f.offset(self.panels, start, self.element)
            with f.loop(0, s.nr, s.lanes, hint="pack.vector") as vector_loop:
                n = f.add(panel_loop.index, vector_loop.index)
                column = f.offset(panel, vector_loop.index, self.element)
                if s.right_transposed:
                    self._pack_transposed(batch, n, column, k0, k_end)
                elif s.phases > 1 and (self.single or s.kc % s.phases == 0):
                    self._pack_phases(batch, n, column, k0, k_end)
                else:
                    self._pack_columns(batch, n, column, k0, k_end)

    def _pack_columns(self, batch: Value, n: Value, column: Value, k0: Value, k_end: Value) -> None:
        """`lanes` columns, k after k."""
        f, s = self.f, self.s
        points = self._points(self.n, True)
        points.bindings.update({self.kernel.batch: batch, self.n: n})
        if self.n.extent % s.nr:
            points.active = self._first_lanes(f.sub(const(I64, self.n.extent), n))
        early = [
            number for number in self.right_values if self.kernel.k not in self.depends[number]
        ]
        late = [number for number in self.right_values if number not in early]
        points.emit(early)
        before = dict(points.computed)
        points.hoist(late, [self.kernel.k])
        with f.loop(k0, k_end, 1, hint="pack.k") as loop:
            points.bindings[self.kernel.k] = loop.index
            points.emit(late)
            value = self._widened(points, self.right)
            f.store(
                value,
                f.offset(column, f.mul(f.sub(loop.index, k0), s.nr), self.element),
                self.itemsize,
            )
        points.computed = before

    def _pack_phases(self, batch: Value, n: Value, column: Value, k0: Value, k_end: Value) -> None:
        """`lanes` columns, as many values of k at a time as there are phases."""
        f, s, k = self.f, self.s, self.kernel.k
        quotient = quotient_of(k, s.phases)
        ready: list[tuple[Points, list[int]]] = []
        for phase in range(s.phases):
            values = list(self.kernel.values)
            for number in self.right_values:
                instr = values[number]
                data = tuple(
                    in_phase(item, k, s.phases, phase) if isinstance(item, Affine) else item
                    for item in instr.data
                )
                values[number] = replace(instr, data=data)
            points = Points(f, tuple(values), self.pointers, self.error, self.n, s.lanes, True)
            points.bindings.update({self.kernel.batch: batch, self.n: n})
            if self.n.extent % s.nr:
                points.active = self._first_lanes(f.sub(const(I64, self.n.extent), n))
            depends = dependences(values)
            late = [number for number in self.right_values if quotient in depends[number]]
            points.emit(number for number in self.right_values if number not in late)
            points.hoist(late, [quotient])
            ready.append((points, late))
        begin, end = f.udiv(k0, s.phases), f.udiv(k_end, s.phases)
        with f.loop(begin, end, 1, hint="pack.k") as loop:
            row = f.sub(f.mul(loop.index, s.phases), k0)
            target = f.offset(column, f.mul(row, s.nr), self.element)
            for phase, (points, late) in enumerate(ready):
                before = dict(points.computed)
                points.bindings[quotient] = loop.index
                points.emit(late)
                place = f.offset(target, phase * s.nr, self.element)
                f.store(self._widened(points, self.right), place, self.itemsize)
                points.computed = before

    def _pack_transposed(
        self, batch: Value, n: Value, column: Value, k0: Value, k_end: Value
    ) -> None:
        """`lanes` columns, read along k and transposed in registers, `lanes` values of k
        at a time.
        """
        f, s = self.f, self.s
        with f.loop(k0, k_end, s.lanes, hint="pack.k") as loop:
            active = (
                self._first_lanes(f.sub(k_end, loop.index))
                if self.has_partial_vector
                else None
            )
            rows = []
            for lane in range(s.lanes):
                points = self._points(self.kernel.k, False)
                number = f.add(n, lane)
                number = f.select(
                    f.icmp("slt", number, self.n.extent), number, const(I64, self.n.extent - 1)
                )
                points.bindings.update(
                    {self.kernel.batch: batch, self.n: number, self.kernel.k: loop.index}
                )
                points.active = active
                points.emit(self.right_values)
                rows.append(self._widened(points, self.right))
            target = f.offset(column, f.mul(f.sub(loop.index, k0), s.nr), self.element)
            for lane, row in enumerate(transpose(f, rows)):
                f.store(row, f.offset(target, lane * s.nr, self.element), self.itemsize)

    def _pack_left(self, batch: Value, m: Value, m_end: Value, k0: Value, k_end: Value) -> None:
        """A strip of mr rows; rows beyond the end repeat the last one, and their results are
        dropped.
        """
        f, s = self.f, self.s
        if s.left_rows:
            with f.loop(0, s.mr, 1, hint="pack.row") as row_loop:
                row = f.add(m, row_loop.index)
                row = f.select(
                    f.icmp("slt", row, self.m.extent), row, const(I64, self.m.extent - 1)
                )
                target = f.offset(self.strip, f.mul(row_loop.index, self.row_stride), self.element)
                with f.loop(k0, k_end, s.lanes, hint="pack.k") as loop:
                    points = self._points(self.kernel.k, False)
                    points.bindings.update(
                        {self.kernel.batch: batch, self.m: row, self.kernel.k: loop.index}
                    )
                    if self.has_partial_vector:
                        points.active = self._first_lanes(f.sub(k_end, loop.index))
                    points.emit(self.left_values)
                    value = self._widened(points, self.left)
                    f.store(
                        value, f.offset(target, f.sub(loop.index, k0), self.element), self.itemsize
                    )
            return
        with f.loop(k0, k_end, 1, hint="pack.k") as loop:
            target = f.offset(self.strip, f.mul(f.sub(loop.index, k0), self.k_stride), self.element)
            with f.loop(0, self.k_stride, s.lanes, hint="pack.row") as row_loop:
                points = self._points(self.m, False)
                row = f.add(m, row_loop.index)
                points.bindings.update(
                    {self.kernel.batch: batch, self.m: row, self.kernel.k: loop.index}
                )
                points.active = self._first_lanes(f.sub(const(I64, self.m.extent), row))
                points.emit(self.left_values)
                value = self._widened(points, self.left)
                f.store(value, f.offset(target, row_loop.index, self.element), self.itemsize)

    def _first_lanes(self, count: Value) -> Value:
        """A mask of the first `count` lanes."""
        lanes = self.s.lanes
        return self.f.icmp("slt", const_lanes(I64, list(range(lanes))), self.f.splat(count, lanes))

    # ---- the micro-kernel and what follows it

    def _tile(
        self,
        batch: Value,
        m0: Value,
        n0: Value,
        m: Value,
        n: Value,
        m_end: Value,
        n_end: Value,
        k0: Value,
        count: Value,
    ) -> None:
        f, s = self.f, self.s
        if self.single:
            tile = self.tiles
        else:
            row = f.mul(f.sub(m, m0), s.nc)
            tile = f.offset(self.tiles, f.add(row, f.mul(f.sub(n, n0), s.mr)), self.element)
        panel = f.offset(self.panels, f.mul(f.sub(n, n0), self.panel_rows), self.element)
        vector = vector_of(self.element, s.lanes)
        zero = const(vector, 0)
        if self.single:
            start = [zero] * (s.mr * s.vectors)
        else:
            first = f.icmp("eq", k0, 0)
            with f.when(first, "clear"):
                for number in range(s.mr * s.vectors):
                    f.store(zero, f.offset(tile, number * s.lanes, self.element), self.itemsize)
            start = [
                f.load(vector, f.offset(tile, number * s.lanes, self.element), self.itemsize)
                for number in range(s.mr * s.vectors)
            ]
        totals = self._micro_kernel(panel, count, start)
        for number, total in enumerate(totals):
            f.store(total, f.offset(tile, number * s.lanes, self.element), self.itemsize)
        if self.single:
            self._epilogue(batch, tile, m, n, m_end, n_end)
        else:
            last = f.icmp("sge", f.add(k0, s.kc), self.kernel.k.extent)
            with f.when(last, "epilogue"):
                self._epilogue(batch, tile, m, n, m_end, n_end)

    def _micro_kernel(self, panel: Value, count: Value, start: list[Value]) -> list[Value]:
        """mr x nr sums of products over `count` values of k, all in registers."""
        unroll = 4
        whole = self.f.mul(self.f.udiv(count, unroll), unroll)
        main = self._k_loop(panel, const(I64, 0), whole, unroll, start)
        return self._k_loop(panel, whole, count, 1, main)

    def _k_loop(
        self, panel: Value, begin: Value, end: Value, unroll: int, start: list[Value]
    ) -> list[Value]:
        f, s = self.f, self.s
        vector = vector_of(self.element, s.lanes)
        with f.loop(begin, end, unroll, start, "k") as loop:
            sums = list(loop.carried)
            f.origin("contraction")
            right_base = f.offset(panel, f.mul(loop.index, s.nr), self.element)
            left_step = 1 if s.left_rows else self.k_stride
            left_base = f.offset(self.strip, f.mul(loop.index, left_step), self.element)
            for step in range(unroll):
                columns = [
                    f.load(
                        vector,
                        f.offset(right_base, step * s.nr + v * s.lanes, self.element),
                        self.itemsize,
                    )
                    for v in range(s.vectors)
                ]
                for row in range(s.mr):
                    place = (
                        (row * self.row_stride + step)
                        if s.left_rows
                        else (step * self.k_stride + row)
                    )
                    left = f.splat(
                        f.load(
                            self.element, f.offset(left_base, place, self.element), self.itemsize
                        ),
                        s.lanes,
                    )
                    for v, column in enumerate(columns):
                        at = row * s.vectors + v
                        sums[at] = (
                            f.fma(left, column, sums[at])
                            if self.wide.is_floating
                            else f.add(f.mul(left, column), sums[at])
                        )
            f.origin("")
            loop.next = sums
        return loop.results

    def _epilogue(
        self, batch: Value, tile: Value, m: Value, n: Value, m_end: Value, n_end: Value
    ) -> None:
        f, s, kernel = self.f, self.s, self.kernel
        rows = f.sub(m_end, m)
        rows = f.select(f.icmp("slt", rows, s.mr), rows, const(I64, s.mr))
        columns = f.sub(n_end, n)
        columns = f.select(f.icmp("slt", columns, s.nr), columns, const(I64, s.nr))
        vector = vector_of(self.element, s.lanes)
        accumulator = [
            number for number in kernel.epilogue.values if kernel.values[number].op == "accumulator"
        ]
        others = [number for number in kernel.epilogue.values if number not in accumulator]
        with (
            f.loop(0, rows, 1, hint="row") as row_loop,
            f.loop(0, columns, s.lanes, hint="vector") as vector_loop,
        ):
            points = self._points(self.n, True)
            points.bindings.update(
                {
                    kernel.batch: batch,
                    self.m: f.add(m, row_loop.index),
                    self.n: f.add(n, vector_loop.index),
                }
            )
            if self.n.extent % s.lanes:
                points.active = self._first_lanes(f.sub(n_end, points.bindings[self.n]))
            place = f.add(f.mul(row_loop.index, s.nr), vector_loop.index)
            total = f.load(vector, f.offset(tile, place, self.element), self.itemsize)
            for number in accumulator:
                points.computed[number] = self._result(total)
            points.emit(others)
            for store in kernel.epilogue.stores:
                f.origin(f"b{store.buffer}")
                buffer = kernel.buffers[store.buffer]
                points.store(
                    buffer.dtype,
                    self.pointers[store.buffer],
                    points.place(store.index),
                    points.computed[store.value],
                )
            f.origin("")

    def _result(self, total: Value) -> Value:
        return scalar.emit_cast(self.f, total, self.wide, self.kernel.dtype)


def transpose(f: Function, rows: list[Value]) -> list[Value]:
    """A square matrix of vectors transposed by log2 rounds of two-register shuffles."""
    size = len(rows)
    step = 1
    while step < size:
        result: list[Value] = [rows[0]] * size
        for base in range(size):
            if base & step:
                continue
            a, b = rows[base], rows[base | step]
            low = [lane if not lane & step else size + (lane ^ step) for lane in range(size)]
            high = [(lane | step) if not lane & step else size + lane for lane in range(size)]
            result[base] = f.shuffle(a, b, low)
            result[base | step] = f.shuffle(a, b, high)
        rows = result
        step *= 2
    return rows

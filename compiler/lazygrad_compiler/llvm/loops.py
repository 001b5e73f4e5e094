"""Emission of a row kernel as `void name(ptr args, i64 begin, i64 end, ptr scratch)`.

`args` points to the kernel's buffers, then to the error block.  A task is one row, or one chunk of
the vectorised row axis; the function runs tasks begin..end-1.  Each instr is emitted at the depth
of the innermost loop that it depends on, so nothing is computed twice in a loop that does not
change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazygrad_compiler.llvm import reduce, scalar
from lazygrad_compiler.llvm.ahead import Fetch, loads_ahead
from lazygrad_compiler.llvm.builder import Function, Module, Value, const, const_lanes
from lazygrad_compiler.llvm.online import OnlineSums
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Affine, Term, Var
from lazygrad_compiler.loops.kernel import ColumnReduction, LoopKernel, Stage
from lazygrad_compiler.loops.online import online_sum
from lazygrad_compiler.loops.schedule import LoopSchedule

PARAMETERS = [("ptr", "args"), ("i64", "begin"), ("i64", "end"), ("ptr", "scratch")]

_Accumulators = list[list[list[Value]]]  # by row, by reduction


def load_arguments(f: Function, count: int) -> tuple[list[Value], Value]:
    """The buffers' addresses, and that of the error block behind them."""
    args = f.parameters[0]
    pointers = [f.load("ptr", f.offset(args, number, "ptr"), 8) for number in range(count + 1)]
    return pointers[:-1], pointers[-1]


def task_count(kernel: LoopKernel, schedule: LoopSchedule) -> int:
    extents = [axis.extent for axis in kernel.row_axes]
    if kernel.block:
        return -(-math.prod(extents) // kernel.block)
    if schedule.vector == "row":
        last = schedule.row_order[-1]
        others = math.prod(extents[p] for p in schedule.row_order[:-1])
        return others * -(-extents[last] // schedule.chunk)
    return math.prod(extents)


def emit_loops(
    module: Module, name: str, kernel: LoopKernel, schedule: LoopSchedule, attributes: str
) -> None:
    _LoopEmitter(module, name, kernel, schedule, attributes).run()


class _Sums:
    """The accumulators of a stage's reductions, of `lanes` lanes each.  together: whether the lanes
    come together at the end.
    """

    def __init__(
        self, f: Function, kernel: LoopKernel, stage: Stage, lanes: int, together: bool
    ) -> None:
        self.f, self.lanes, self.together = f, lanes, together
        self.reductions = [(r, kernel.values[r.value].dtype) for r in stage.reductions]

    def start(self) -> list[list[Value]]:
        return [
            reduce.start(reduction, dtype, self.lanes,
                         reduce.marking_lanes(dtype, self.lanes, self.together))
            for reduction, dtype in self.reductions
        ]

    def take_in(
        self, points: Points, held: list[list[Value]], active: Value | None
    ) -> list[list[Value]]:
        """The accumulators after one more point, or vector of points."""
        new = []
        for (reduction, dtype), before in zip(self.reductions, held, strict=True):
            spot = None
            if reduction.position is not None:
                spot = points.index_vector(reduction.position)
            value = points.computed[reduction.value]
            self.f.origin(f"%{reduction.result}")
            new.append(reduce.take_in(self.f, reduction, dtype, before, value, spot, active))
        self.f.origin("")
        return new

    def finish(self, points: Points, held: list[list[Value]]) -> None:
        """The reductions' results, as values of the row."""
        for (reduction, dtype), values in zip(self.reductions, held, strict=True):
            self.f.origin(f"%{reduction.result}")
            if points.vector is None:
                values = reduce.across_lanes(self.f, reduction.op, dtype, values)
            points.computed[reduction.result] = reduce.finish(self.f, reduction, dtype, values)


class _LoopEmitter:
    def __init__(
        self, module: Module, name: str, kernel: LoopKernel, schedule: LoopSchedule, attributes: str
    ) -> None:
        self.f = module.function(name, "void", PARAMETERS, attributes)
        self.kernel = kernel
        self.schedule = schedule
        self.depends = dependences(kernel.values)
        self.pointers, self.error = load_arguments(self.f, len(kernel.buffers))
        scratch = self.f.parameters[3]
        *starts, end = _row_buffers(kernel, schedule)
        self.blocks: dict[int, Value] = {}  # of the columns' buffers, where the block's part is
        self.kept = [  # of each row that is computed together with others
            [self.f.offset(scratch, number * end + start, "i8") for start in starts]
            for number in range(schedule.abreast)
        ]

    def run(self) -> None:
        f, kernel, schedule = self.f, self.kernel, self.schedule
        _, begin, end, _ = f.parameters
        if kernel.block:
            with f.loop(begin, end, 1, hint="task") as task:
                self._block(task.index)
            self._finish()
            return
        axes = [kernel.row_axes[p] for p in schedule.row_order]
        row_vector = axes[-1] if schedule.vector == "row" else None
        outer = axes[:-1] if row_vector is not None else axes
        with f.loop(begin, end, 1, hint="task") as task:
            number = task.index
            chunks = -(-row_vector.extent // schedule.chunk) if row_vector is not None else 1
            position = number
            chunk_number = const("i64", 0)
            if chunks > 1 and schedule.chunks_outermost:
                others = math.prod(axis.extent for axis in outer)
                chunk_number = f.udiv(position, others)
                position = f.urem(position, others)
            elif chunks > 1:
                chunk_number = f.urem(position, chunks)
                position = f.udiv(position, chunks)
            bindings = self._digits(position, outer)
            if row_vector is None:
                self._rows([bindings])
            else:
                self._vector_rows(bindings, row_vector, chunk_number)
        self._finish()

    def _finish(self) -> None:
        if self.schedule.stream:
            self.f.emit_void("fence seq_cst")  # stores past the caches obey no other order
        self.f.ret()

    def _digits(self, position: Value, axes: Sequence[Var]) -> dict[Var, Value]:
        """The axes' positions of a linear number, the last axis fastest."""
        f = self.f
        bindings: dict[Var, Value] = {}
        for axis in reversed(axes):
            last = axis is axes[0]
            bindings[axis] = position if last else f.urem(position, axis.extent)
            if not last:
                position = f.udiv(position, axis.extent)
        return bindings

    def _block(self, number: Value) -> None:
        """The rows of one block, and what they sum up to, column by column."""
        f, kernel = self.f, self.kernel
        rows = math.prod(axis.extent for axis in kernel.row_axes)
        first = f.mul(number, kernel.block)
        end = f.add(first, kernel.block)
        end = f.select(f.icmp("slt", end, rows), end, const("i64", rows))
        for stage in kernel.stages:
            for column in stage.columns:
                self._start_column(number, stage, column)
        abreast = self.schedule.abreast
        if abreast > 1:
            each = f.udiv(f.sub(end, first), abreast)
            with f.loop(0, each, 1, hint="rows") as loop:
                row = f.add(first, loop.index)
                numbers = [f.add(row, f.mul(each, number)) for number in range(abreast)]
                self._rows([self._digits(number, kernel.row_axes) for number in numbers])
            if rows % abreast == 0 and kernel.block % abreast == 0:
                return
            first = f.add(first, f.mul(each, abreast))
        with f.loop(first, end, 1, hint="row") as loop:
            self._rows([self._digits(loop.index, kernel.row_axes)])

    def _start_column(self, number: Value, stage: Stage, column: ColumnReduction) -> None:
        """The block's own part of the buffer, with the result of no rows in it."""
        f, buffer = self.f, self.kernel.buffers[column.buffer]
        count = math.prod(axis.extent for axis in stage.axes)
        element = scalar.memory_type(buffer.dtype)
        place = f.offset(self.pointers[column.buffer], f.mul(number, count), element)
        self.blocks[column.buffer] = place
        lanes = self.schedule.lanes[self.kernel.stages.index(stage)]
        for width, begin, end in ((lanes, 0, count // lanes * lanes),
                                  (1, count // lanes * lanes, count)):
            neutral = reduce.neutral(column.op, buffer.dtype, width)
            with f.loop(begin, end, width, hint="clear") as loop:
                address = f.offset(place, loop.index, element)
                value = scalar.to_memory(f, neutral, buffer.dtype)
                f.store(value, address, buffer.dtype.itemsize)

    def _vector_rows(self, bindings: dict[Var, Value], axis: Var, chunk_number: Value) -> None:
        """The rows of one chunk, `lanes` at a time; the rest under a mask."""
        f, lanes, chunk = self.f, self.schedule.lanes[0], self.schedule.chunk
        if axis.extent <= chunk:
            begin, end = const("i64", 0), const("i64", axis.extent)
        else:
            begin = f.mul(chunk_number, chunk)
            end = f.add(begin, chunk)
            end = f.select(f.icmp("slt", end, axis.extent), end, const("i64", axis.extent))
        whole = axis.extent // lanes * lanes
        if whole:
            limit = (
                f.select(f.icmp("slt", end, whole), end, const("i64", whole))
                if axis.extent % lanes
                else end
            )
            with f.loop(begin, limit, lanes, hint="rows") as loop:
                self._rows([{**bindings, axis: loop.index}], axis)
        if axis.extent % lanes:
            last = const("i64", whole)
            active = const_lanes("i1", [lane < axis.extent - whole for lane in range(lanes)])
            with f.when(f.icmp("eq", end, axis.extent), "rest"):
                self._rows([{**bindings, axis: last}], axis, active)

    def _rows(
        self,
        bindings: Sequence[dict[Var, Value]],
        vector: Var | None = None,
        active: Value | None = None,
    ) -> None:
        """All stages of one row, of a vector of rows, or of several rows abreast."""
        rows = []
        for number, bound in enumerate(bindings):
            points = self._points(vector, self.schedule.lanes[0])
            points.kept = self.kept[number]
            points.bindings.update(bound)
            points.active = active
            rows.append(points)
        done: set[int] = set()
        for number in range(len(self.kernel.stages)):
            if number in done:
                continue
            stages = (number, number + 1) if number in self.schedule.online else (number,)
            self._stage(rows, number, self._sums(stages, vector))
            for points in rows:
                for each in stages:
                    self._store_results(points, self.kernel.stages[each])
            done.update(stages)
        self.f.origin("")

    def _sums(self, stages: Sequence[int], vector: Var | None) -> _Sums | OnlineSums:
        """The accumulators of one stage, or of two that go in one pass."""
        along = vector is not None or self._inner_vector(stages[0]) is not None
        lanes = min(self.schedule.lanes[number] for number in stages) if along else 1
        if len(stages) == 1:
            stage = self.kernel.stages[stages[0]]
            return _Sums(self.f, self.kernel, stage, lanes, together=vector is None)
        online = online_sum(self.kernel, stages[0])
        assert online is not None
        return OnlineSums(self.f, self.kernel, online, lanes)

    def _inner_vector(self, number: int) -> Var | None:
        """The stage's axis that the vector runs along."""
        stage, order = self.kernel.stages[number], self.schedule.inner_order[number]
        return stage.axes[order[-1]] if order and self.schedule.vector == "inner" else None

    def _points(self, vector: Var | None, lanes: int) -> Points:
        return Points(
            self.f, self.kernel.values, self.pointers, self.error, vector, lanes, aligned=True
        )

    def _stage(self, rows: list[Points], number: int, sums: _Sums | OnlineSums) -> None:
        """One stage of the given rows, which go through its loops together."""
        f, kernel, stage = self.f, self.kernel, self.kernel.stages[number]
        axes = tuple(stage.axes[p] for p in self.schedule.inner_order[number])
        width, inner_vector = self.schedule.lanes[number], self._inner_vector(number)
        fetched: list[list[Fetch]] = [[] for _ in rows]
        if self.schedule.prefetch == number and inner_vector is not None:
            fetched = [loads_ahead(kernel, self.schedule, stage, inner_vector, points,
                                   self._points(None, 1)) for points in rows]
        depth_of: dict[Term, int] = {axis: depth + 1 for depth, axis in enumerate(axes)}
        levels: list[list[int]] = [[] for _ in range(len(axes) + 1)]
        for value in stage.values:
            if kernel.values[value].op == "row":
                continue
            depth = max((depth_of.get(var, 0) for var in self.depends[value]), default=0)
            levels[depth].append(value)

        def innermost(insides: list[Points], accumulators: _Accumulators) -> _Accumulators:
            for inside in insides:
                self._store_all(inside, stage)
            for column in stage.columns:
                self._take_in(insides, column)
            for inside, wanted in zip(insides, fetched, strict=True):
                for buffer, index, on in wanted:
                    pointer = inside.pointers[buffer]
                    inside.prefetch(kernel.buffers[buffer].dtype, pointer, index, on)
            return [
                sums.take_in(inside, held, inside.active if inside.vector is inner_vector else None)
                for inside, held in zip(insides, accumulators, strict=True)
            ]

        def nest(outsides: list[Points], depth: int, accumulators: _Accumulators) -> _Accumulators:
            for outside in outsides:
                outside.emit(levels[depth])
            if depth == len(axes):
                return innermost(outsides, accumulators)
            axis = axes[depth]
            if axis is not inner_vector:
                later = [number for level in levels[depth + 1 :] for number in level]
                for outside in outsides:
                    outside.hoist(later, axes[depth:])
            vector = axis if axis is inner_vector else None
            step = width if vector is not None else 1
            whole = axis.extent // step * step
            flat = _flat(accumulators)
            if whole or vector is None:
                with f.loop(0, whole, step, flat, axis.name) as loop:
                    insides = [self._child(outside, vector, width) for outside in outsides]
                    for inside in insides:
                        inside.bindings[axis] = loop.index
                    loop.next = _flat(nest(insides, depth + 1, _like(loop.carried, accumulators)))
                flat = loop.results
            if axis.extent % step:
                insides = [self._child(outside, vector, width) for outside in outsides]
                for inside in insides:
                    inside.bindings[axis] = const("i64", whole)
                    inside.active = const_lanes(
                        "i1", [lane < axis.extent - whole for lane in range(step)]
                    )
                flat = _flat(nest(insides, depth + 1, _like(flat, accumulators)))
            return _like(flat, accumulators)

        results = nest(rows, 0, [sums.start() for _ in rows])
        for points, held in zip(rows, results, strict=True):
            sums.finish(points, held)

    def _store_all(self, points: Points, stage: Stage) -> None:
        """The stage's stores and keeps at one point, but for the reductions' results."""
        f, kernel = self.f, self.kernel
        results = {reduction.result for reduction in stage.reductions}
        woven: dict[tuple[int, Affine], Value] = {}
        for store in stage.stores:
            if store.value in results:
                continue
            f.origin(f"b{store.buffer}")
            dtype = kernel.buffers[store.buffer].dtype
            pointer, value = points.pointers[store.buffer], points.computed[store.value]
            place = points.place(store.index)
            if points.weaves(place):
                before = woven.pop((store.buffer, store.index + -1), None)
                if before is None:
                    woven[store.buffer, store.index] = value
                else:
                    place = points.place(store.index + -1)
                    points.store_woven(dtype, pointer, place, before, value)
                continue
            write = points.stream if self.schedule.stream else points.store
            write(dtype, pointer, place, value)
        for (buffer, index), value in woven.items():
            dtype = kernel.buffers[buffer].dtype
            points.store(dtype, points.pointers[buffer], points.place(index), value)
        for keep in stage.keeps:
            value = points.computed[keep.value]
            points.keep(keep.buffer, kernel.kept[keep.buffer], keep.index, value)

    def _store_results(self, points: Points, stage: Stage) -> None:
        """The results of the stage's reductions that are stored."""
        results = {reduction.result for reduction in stage.reductions}
        for store in stage.stores:
            if store.value not in results:
                continue
            self.f.origin(f"b{store.buffer}")
            dtype, pointer = self.kernel.buffers[store.buffer].dtype, points.pointers[store.buffer]
            points.store(dtype, pointer, points.place(store.index), points.computed[store.value])

    def _take_in(self, rows: list[Points], column: ColumnReduction) -> None:
        """The column's sums after one point of each row: read and written once for all of them."""
        f, buffer = self.f, self.kernel.buffers[column.buffer]
        f.origin(f"b{column.buffer}")
        points, dtype = rows[0], self.kernel.values[column.value].dtype
        place, pointer = points.place(column.index), self.blocks[column.buffer]
        held = [f.splat(points.load(buffer.dtype, pointer, place, None), points.lanes)]
        for row in rows:
            value = f.splat(scalar.widen(f, row.computed[column.value], dtype), points.lanes)
            held = reduce.combine(f, column.op, buffer.dtype, held, [value])
        points.store(buffer.dtype, pointer, place, held[0])

    def _child(self, outside: Points, vector: Var | None, lanes: int) -> Points:
        """A copy of the state for the inside of a loop: what is computed there is not
        seen outside.
        """
        inside = self._points(vector or outside.vector, lanes)
        inside.kept = outside.kept
        inside.bindings.update(outside.bindings)
        inside.computed.update(outside.computed)
        inside.hoisted.update(outside.hoisted)
        inside.active = outside.active
        return inside


def _row_buffers(kernel: LoopKernel, schedule: LoopSchedule) -> list[int]:
    """Where in scratch memory each row buffer begins, and where the last one ends."""
    positions = max(
        (math.prod(axis.extent for axis in stage.axes) for stage in kernel.stages), default=1
    )
    if schedule.vector == "row":
        positions *= schedule.lanes[0]
    starts = [0]
    for dtype in kernel.kept:
        starts.append(starts[-1] + -(-positions * dtype.itemsize // 64) * 64)
    return starts


def scratch_bytes(kernel: LoopKernel, schedule: LoopSchedule) -> int:
    """The scratch memory that each thread needs."""
    return _row_buffers(kernel, schedule)[-1] * schedule.abreast


def _flat(accumulators: _Accumulators) -> list[Value]:
    return [value for row in accumulators for held in row for value in held]


def _like(flat: Sequence[Value], shape: _Accumulators) -> _Accumulators:
    """Values in the nesting of `shape`."""
    following = iter(flat)
    return [[[next(following) for _ in held] for held in row] for row in shape]

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
from lazygrad_compiler.llvm.builder import Function, Module, Value, const, const_lanes
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Affine, Term, Var
from lazygrad_compiler.loops.kernel import ColumnReduction, LoopKernel, Stage
from lazygrad_compiler.loops.schedule import LoopSchedule

PARAMETERS = [("ptr", "args"), ("i64", "begin"), ("i64", "end"), ("ptr", "scratch")]


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
        starts = _row_buffers(kernel, schedule)
        self.blocks: dict[int, Value] = {}  # of the columns' buffers, where the block's part is
        self.kept = [self.f.offset(scratch, start, "i8") for start in starts[:-1]]

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
                self._row(bindings, None, None)
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
        with f.loop(first, end, 1, hint="row") as row:
            self._row(self._digits(row.index, kernel.row_axes), None, None)

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
                self._row({**bindings, axis: loop.index}, axis, None)
        if axis.extent % lanes:
            last = const("i64", whole)
            active = const_lanes("i1", [lane < axis.extent - whole for lane in range(lanes)])
            with f.when(f.icmp("eq", end, axis.extent), "rest"):
                self._row({**bindings, axis: last}, axis, active)

    def _row(self, bindings: dict[Var, Value], vector: Var | None, active: Value | None) -> None:
        """All stages of one row (or of a vector of rows)."""
        points = self._points(vector, self.schedule.lanes[0])
        points.bindings.update(bindings)
        points.active = active
        for number, stage in enumerate(self.kernel.stages):
            order = self.schedule.inner_order[number]
            axes = tuple(stage.axes[p] for p in order)
            ahead = self.schedule.prefetch == number
            self._stage(points, stage, axes, self.schedule.lanes[number], ahead)

    def _points(self, vector: Var | None, lanes: int) -> Points:
        points = Points(
            self.f, self.kernel.values, self.pointers, self.error, vector, lanes, aligned=True
        )
        points.kept = self.kept
        return points

    def _loads_ahead(self, stage: Stage, axis: Var) -> list[tuple[int, Affine, int]]:
        """What the stage reads along the axis that the next row reads elsewhere: buffer, index, and
        how far away the next row lies.
        """
        if not self.kernel.row_axes:
            return []
        following = self.kernel.row_axes[self.schedule.row_order[-1]]
        found: dict[tuple[int, Affine, int], None] = {}
        for number in stage.values:
            instr = self.kernel.values[number]
            if instr.op != "load":
                continue
            buffer, index = instr.data
            plain = all(isinstance(term, Var) for term, _ in index.terms)
            step = index.coefficient(following)
            if plain and step and index.coefficient(axis) == 1:
                found[buffer, index, step] = None
        return list(found)

    def _stage(
        self, points: Points, stage: Stage, axes: tuple[Var, ...], width: int, ahead: bool
    ) -> None:
        f, kernel = self.f, self.kernel
        inner_vector = axes[-1] if axes and self.schedule.vector == "inner" else None
        fetched = self._loads_ahead(stage, inner_vector) if ahead and inner_vector else []
        depth_of: dict[Term, int] = {axis: depth + 1 for depth, axis in enumerate(axes)}
        levels: list[list[int]] = [[] for _ in range(len(axes) + 1)]
        for number in stage.values:
            if kernel.values[number].op == "row":
                continue
            depth = max((depth_of.get(var, 0) for var in self.depends[number]), default=0)
            levels[depth].append(number)
        dtypes = [kernel.values[r.value].dtype for r in stage.reductions]
        lanes = width if inner_vector is not None or points.vector is not None else 1
        starts = [reduce.start(r, d, lanes) for r, d in zip(stage.reductions, dtypes, strict=True)]
        results = {r.result for r in stage.reductions}

        def innermost(inside: Points, accumulators: list[list[Value]]) -> list[list[Value]]:
            woven: dict[tuple[int, Affine], Value] = {}
            for store in stage.stores:
                if store.value in results:
                    continue
                f.origin(f"b{store.buffer}")
                dtype = kernel.buffers[store.buffer].dtype
                pointer, value = inside.pointers[store.buffer], inside.computed[store.value]
                place = inside.place(store.index)
                if inside.weaves(place):
                    before = woven.pop((store.buffer, store.index + -1), None)
                    if before is None:
                        woven[store.buffer, store.index] = value
                    else:
                        place = inside.place(store.index + -1)
                        inside.store_woven(dtype, pointer, place, before, value)
                    continue
                write = inside.stream if self.schedule.stream else inside.store
                write(dtype, pointer, place, value)
            for (buffer, index), value in woven.items():
                dtype = kernel.buffers[buffer].dtype
                inside.store(dtype, inside.pointers[buffer], inside.place(index), value)
            for keep in stage.keeps:
                value = inside.computed[keep.value]
                inside.keep(keep.buffer, kernel.kept[keep.buffer], keep.index, value)
            for column in stage.columns:
                self._take_in(inside, column)
            for number, index, step in fetched:
                inside.prefetch(
                    kernel.buffers[number].dtype, inside.pointers[number], index, step
                )
            new = []
            for reduction, dtype, held in zip(stage.reductions, dtypes, accumulators, strict=True):
                spot = (
                    inside.index_vector(reduction.position)
                    if reduction.position is not None
                    else None
                )
                active = inside.active if inside.vector is inner_vector else None
                f.origin(f"%{reduction.result}")
                new.append(
                    reduce.take_in(
                        f, reduction, dtype, held, inside.computed[reduction.value], spot, active
                    )
                )
            f.origin("")
            return new

        def nest(outside: Points, depth: int, accumulators: list[list[Value]]) -> list[list[Value]]:
            outside.emit(levels[depth])
            if depth == len(axes):
                return innermost(outside, accumulators)
            if axes[depth] is not inner_vector:
                later = [number for level in levels[depth + 1 :] for number in level]
                outside.hoist(later, axes[depth:])
            axis = axes[depth]
            flat = [v for held in accumulators for v in held]
            if axis is not inner_vector:
                with f.loop(0, axis.extent, 1, flat, axis.name) as loop:
                    inside = self._child(outside, None, width)
                    inside.bindings[axis] = loop.index
                    loop.next = [
                        v
                        for held in nest(inside, depth + 1, _like(loop.carried, accumulators))
                        for v in held
                    ]
                return _like(loop.results, accumulators)
            lanes = width
            whole = axis.extent // lanes * lanes
            if whole:
                with f.loop(0, whole, lanes, flat, axis.name) as loop:
                    inside = self._child(outside, axis, width)
                    inside.bindings[axis] = loop.index
                    loop.next = [
                        v
                        for held in nest(inside, depth + 1, _like(loop.carried, accumulators))
                        for v in held
                    ]
                flat = loop.results
            if axis.extent % lanes:
                inside = self._child(outside, axis, width)
                inside.bindings[axis] = const("i64", whole)
                inside.active = const_lanes(
                    "i1", [lane < axis.extent - whole for lane in range(lanes)]
                )
                flat = [
                    v for held in nest(inside, depth + 1, _like(flat, accumulators)) for v in held
                ]
            return _like(flat, accumulators)

        final = nest(points, 0, starts)
        for reduction, dtype, held in zip(stage.reductions, dtypes, final, strict=True):
            f.origin(f"%{reduction.result}")
            if points.vector is None:
                held = reduce.across_lanes(f, reduction.op, dtype, held)
            points.computed[reduction.result] = reduce.finish(f, reduction, dtype, held)
        for store in stage.stores:
            if store.value in results:
                f.origin(f"b{store.buffer}")
                buffer = kernel.buffers[store.buffer]
                points.store(
                    buffer.dtype,
                    points.pointers[store.buffer],
                    points.place(store.index),
                    points.computed[store.value],
                )
        f.origin("")

    def _take_in(self, points: Points, column: ColumnReduction) -> None:
        f, buffer = self.f, self.kernel.buffers[column.buffer]
        f.origin(f"b{column.buffer}")
        place, pointer = points.place(column.index), self.blocks[column.buffer]
        before = points.load(buffer.dtype, pointer, place, None)
        dtype = self.kernel.values[column.value].dtype
        value = f.splat(scalar.widen(f, points.computed[column.value], dtype), points.lanes)
        before = f.splat(before, points.lanes)
        (after,) = reduce.combine(f, column.op, buffer.dtype, [before], [value])
        points.store(buffer.dtype, pointer, place, after)

    def _child(self, outside: Points, vector: Var | None, lanes: int) -> Points:
        """A copy of the state for the inside of a loop: what is computed there is not
        seen outside.
        """
        inside = self._points(vector or outside.vector, lanes)
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
    return _row_buffers(kernel, schedule)[-1]


def _like(flat: list[Value], shape: list[list[Value]]) -> list[list[Value]]:
    result, position = [], 0
    for held in shape:
        result.append(flat[position : position + len(held)])
        position += len(held)
    return result

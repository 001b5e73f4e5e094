"""Emission of loop kernels for a GPU: maps, and rows with reductions (see `schedule.py`).

In a map a block takes a run of points, a thread several vectors of it, all loads before the first
store.  In a row kernel the members of a team take the positions of a row in turn; the team's
accumulators come together as `team.py` says.  Rows that fit stay in registers: what an earlier
stage has loaded or computed at a position is used again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lazygrad_compiler.backend import Emitted, Grid
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.llvm import reduce
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.llvm.points import I64, dependences
from lazygrad_compiler.loops.index import Affine, Div, Dyn, Mod, Term, Var
from lazygrad_compiler.loops.kernel import ContractionKernel, Instr, LoopKernel, Stage, Store
from lazygrad_compiler.ptx.builder import KernelFunction, KernelModule
from lazygrad_compiler.ptx.points import SMALL, ThreadPoints
from lazygrad_compiler.ptx.schedule import LoopGrid, is_map, schedule_loops
from lazygrad_compiler.ptx.team import Team


def emit_loops(
    module: KernelModule, name: str, kernel: LoopKernel, target: CudaTarget
) -> Emitted:
    schedule = schedule_loops(kernel, target)
    f = module.kernel(name, len(kernel.buffers), schedule.threads)
    rows = math.prod(axis.extent for axis in kernel.row_axes)
    if is_map(kernel):
        _Map(f, kernel, schedule).run()
        blocks = -(-rows // (schedule.threads * schedule.lanes * schedule.unroll))
    else:
        _Rows(f, kernel, schedule).run()
        blocks = -(-rows // schedule.rows)
    f.ret()
    return Emitted(
        schedule, grid=Grid((blocks, 1, 1), (schedule.threads, 1, 1), module.dynamic_bytes)
    )


def digits(
    f: KernelFunction, number: Value, axes: Sequence[Var], largest: int
) -> dict[Var, Value]:
    """The axes' positions of a linear number (i64), the last axis fastest."""
    bindings: dict[Var, Value] = {}
    small = largest < SMALL
    if small and len(axes) > 1:
        number = f.convert("trunc", number, "i32")
    for axis in reversed(axes):
        if axis is axes[0]:
            bindings[axis] = number
        else:
            bindings[axis] = f.urem(number, axis.extent)
            number = f.udiv(number, axis.extent)
    return {
        axis: f.wide(value) if value.type == "i32" else value for axis, value in bindings.items()
    }


def make_points(
    f: KernelFunction, kernel: Any, vector: Var | None = None, lanes: int = 1
) -> ThreadPoints:
    count = len(kernel.buffers)
    pointers, error = f.parameters[:count], f.parameters[count]
    return ThreadPoints(
        f, kernel.values, pointers, error, vector if lanes > 1 else None, lanes, aligned=True
    )


def emit_stores(
    points: ThreadPoints, kernel: LoopKernel | ContractionKernel, stores: Iterable[Store]
) -> None:
    """Stores of one point (or vector of points); pairs side by side are woven."""
    f = points.f
    woven: dict[tuple[int, Affine], Value] = {}
    for store in stores:
        f.origin(f"b{store.buffer}")
        dtype, pointer = kernel.buffers[store.buffer].dtype, points.pointers[store.buffer]
        value, place = points.computed[store.value], points.place(store.index)
        if points.weaves(place):
            before = woven.pop((store.buffer, store.index + -1), None)
            if before is None:
                woven[store.buffer, store.index] = value
            else:
                place = points.place(store.index + -1)
                points.store_woven(dtype, pointer, place, before, value)
            continue
        points.store(dtype, pointer, place, value)
    for (buffer, index), value in woven.items():
        dtype = kernel.buffers[buffer].dtype
        points.store(dtype, points.pointers[buffer], points.place(index), value)
    f.origin("")


class _Map:
    """A kernel without inner axes: every point by itself."""

    def __init__(self, f: KernelFunction, kernel: LoopKernel, schedule: LoopGrid) -> None:
        self.f, self.kernel, self.schedule = f, kernel, schedule
        self.axes = [kernel.row_axes[p] for p in schedule.order]
        self.size = math.prod(axis.extent for axis in self.axes)

    def run(self) -> None:
        f, s = self.f, self.schedule
        tile = s.threads * s.lanes * s.unroll
        thread, block = f.wide(f.thread()), f.wide(f.block())
        start = f.mul(block, tile)
        first = f.add(start, f.mul(thread, s.lanes))
        whole = self.size // tile * tile
        steps = [f.add(first, k * s.threads * s.lanes) if k else first for k in range(s.unroll)]
        if not self.size % tile:
            self._points(steps, s.lanes)
            return
        last = f.icmp("sge", start, whole)
        if whole:
            with f.when(f.not_(last), "whole"):
                self._points(steps, s.lanes)
        with f.when(last, "rest"):
            begin = f.add(start, thread)
            with f.grid_stride(begin, const(I64, self.size), s.threads, "point") as point:
                self._points([point], 1)

    def _points(self, firsts: Sequence[Value], lanes: int) -> None:
        """All the values of some vectors of points, then their stores."""
        f, kernel = self.f, self.kernel
        made = []
        for first in firsts:
            points = make_points(f, kernel, self.axes[-1] if self.axes else None, lanes)
            points.bindings.update(digits(f, first, self.axes, self.size))
            for stage in kernel.stages:
                points.emit(n for n in stage.values if kernel.values[n].op != "row")
            made.append(points)
        for points in made:
            for stage in kernel.stages:
                emit_stores(points, kernel, stage.stores)


class _Rows:
    """A kernel whose stages run along rows, by teams of threads."""

    def __init__(self, f: KernelFunction, kernel: LoopKernel, schedule: LoopGrid) -> None:
        self.f, self.kernel, self.schedule = f, kernel, schedule
        self.depends = dependences(kernel.values)
        self.known: dict[tuple, Value] = {}
        self.signatures: dict[int, tuple] = {}

    def run(self) -> None:
        f, kernel, s = self.f, self.kernel, self.schedule
        self.team = Team.of(f, s.team, s.rows, s.across)
        axes = [kernel.row_axes[p] for p in s.order]
        rows = math.prod(axis.extent for axis in axes)
        row = f.add(f.mul(f.wide(f.block()), s.rows), f.wide(self.team.place))
        self.present: Value | None = None
        if rows % s.rows:
            # teams without a row go along with the last one and store nothing
            self.present = f.icmp("slt", row, rows)
            row = f.select(self.present, row, const(I64, rows - 1))
        points = make_points(f, kernel)
        points.bindings.update(digits(f, row, axes, rows))
        for number, stage in enumerate(kernel.stages):
            self._stage(points, stage, tuple(stage.axes[p] for p in s.inner[number]))

    # ---- one stage

    def _stage(self, points: ThreadPoints, stage: Stage, axes: tuple[Var, ...]) -> None:
        f, kernel, s = self.f, self.kernel, self.schedule
        outside, inside = self._split(stage, axes)
        self._emit(points, outside, None, axes)
        results = {reduction.result for reduction in stage.reductions}
        stores = [store for store in stage.stores if store.value not in results]
        dtypes = [kernel.values[r.value].dtype for r in stage.reductions]
        held = [
            reduce.start(r, d, s.lanes) for r, d in zip(stage.reductions, dtypes, strict=True)
        ]
        if not axes:
            self._row_stores(points, stores)
            return
        length = math.prod(axis.extent for axis in axes)
        rank = f.wide(self.team.rank)
        first = f.mul(rank, s.lanes) if s.lanes > 1 else rank
        step = s.team * s.lanes

        def chunk(
            positions: Sequence[Value],
            accumulators: list[list[Value]],
            actives: Sequence[Value | None],
            slots: Sequence[int | None],
        ) -> list[list[Value]]:
            """Some vectors of positions: values, then stores, then accumulators."""
            made = []
            for position, active, slot in zip(positions, actives, slots, strict=True):
                here = self._child(points, axes[-1], s.lanes)
                here.bindings.update(digits(f, position, axes, length))
                here.active = active
                self._emit(here, inside, slot, axes)
                made.append(here)
            for here, active in zip(made, actives, strict=True):
                if stores:
                    self._when(self._both(active, self.present), here, stores)
                accumulators = self._take_in(stage, dtypes, here, accumulators, active)
            return accumulators

        if s.held:
            positions = [f.add(first, k * step) if k else first for k in range(-(-length // step))]
            actives: list[Value | None] = [
                None if (k + 1) * step <= length else f.icmp("slt", position, length)
                for k, position in enumerate(positions)
            ]
            held = chunk(positions, held, actives, list(range(len(positions))))
        else:
            held = self._looped(chunk, first, step, length, held)
        for reduction, dtype, accumulators in zip(stage.reductions, dtypes, held, strict=True):
            f.origin(f"%{reduction.result}")
            accumulators = reduce.across_lanes(f, reduction.op, dtype, accumulators)
            wide = reduce.accumulator_dtype(dtype)
            accumulators = self.team.combine(f, reduction.op, wide, accumulators)
            points.computed[reduction.result] = reduce.finish(f, reduction, dtype, accumulators)
        f.origin("")
        self._row_stores(points, [store for store in stage.stores if store.value in results])

    def _looped(self, chunk, first: Value, step: int, length: int, held: list[list[Value]]):
        """Positions first, first + step, …: several together as long as all are there."""
        f, unroll = self.f, self.schedule.unroll
        flat = [value for each in held for value in each]
        rest = first
        if unroll > 1 and length >= unroll * step:
            end = length // (unroll * step) * unroll * step
            with f.loop(first, const(I64, end), unroll * step, flat, "several") as loop:
                positions = [f.add(loop.index, k * step) if k else loop.index
                             for k in range(unroll)]
                made = chunk(positions, _like(loop.carried, held), [None] * unroll,
                             [None] * unroll)
                loop.next = [value for each in made for value in each]
            flat, rest = loop.results, f.add(first, end)
            if end == length:
                return _like(flat, held)
        with f.loop(rest, const(I64, length), step, flat, "position") as loop:
            made = chunk([loop.index], _like(loop.carried, held), [None], [None])
            loop.next = [value for each in made for value in each]
        return _like(loop.results, held)

    def _split(self, stage: Stage, axes: Sequence[Var]) -> tuple[list[int], list[int]]:
        """Instrs that the inner axes leave alone, and the others."""
        inner: set[Term] = set(axes)
        outside: list[int] = []
        inside: list[int] = []
        for number in stage.values:
            if self.kernel.values[number].op != "row":
                (inside if self.depends[number] & inner else outside).append(number)
        return outside, inside

    def _take_in(
        self,
        stage: Stage,
        dtypes: Sequence[Any],
        here: ThreadPoints,
        accumulators: list[list[Value]],
        active: Value | None,
    ) -> list[list[Value]]:
        f, new = self.f, []
        for reduction, dtype, held in zip(stage.reductions, dtypes, accumulators, strict=True):
            f.origin(f"%{reduction.result}")
            spot = None
            if reduction.position is not None:
                spot = here.index_vector(reduction.position)
            value = here.computed[reduction.value]
            taken = reduce.take_in(f, reduction, dtype, held, value, spot, None)
            if active is not None:
                taken = [f.select(active, a, b) for a, b in zip(taken, held, strict=True)]
            new.append(taken)
        f.origin("")
        return new

    def _row_stores(self, points: ThreadPoints, stores: Sequence[Store]) -> None:
        """Values of the row as a whole, by the team's first member."""
        if not stores:
            return
        # others may yet read the element that is written, where both share memory
        self.team.meet(self.f)
        self._when(self._both(self.team.leader(self.f), self.present), points, stores)

    def _when(
        self, condition: Value | None, points: ThreadPoints, stores: Sequence[Store]
    ) -> None:
        if condition is None:
            emit_stores(points, self.kernel, stores)
            return
        with self.f.when(condition, "store"):
            emit_stores(points, self.kernel, stores)

    def _both(self, a: Value | None, b: Value | None) -> Value | None:
        return (b if a is None else a) if a is None or b is None else self.f.and_(a, b)

    def _child(self, outside: ThreadPoints, vector: Var, lanes: int) -> ThreadPoints:
        here = make_points(self.f, self.kernel, vector, lanes)
        here.bindings.update(outside.bindings)
        here.computed.update(outside.computed)
        return here

    # ---- values that stages share

    def _emit(
        self, points: ThreadPoints, numbers: Iterable[int], slot: int | None, axes: tuple[Var, ...]
    ) -> None:
        """slot: which of the vectors held in registers this is; None where rows are not held."""
        if not self.schedule.held:
            points.emit(numbers)
            return
        for number in numbers:
            key = (self._signature(number, axes), slot)
            if key in self.known:
                points.computed[number] = self.known[key]
                continue
            points.emit((number,))
            self.known[key] = points.computed[number]

    def _signature(self, number: int, axes: tuple[Var, ...]) -> tuple:
        """What an instr computes, the same for equal instrs of stages with equal axes."""
        if number in self.signatures:
            return self.signatures[number]
        instr = self.kernel.values[number]
        if instr.op == "row" or self._unsafe(instr):
            made: tuple = ("itself", number)
        else:
            names = {axis: ("inner", k, axis.extent) for k, axis in enumerate(axes)}
            arguments = tuple(self._signature(argument, axes) for argument in instr.args)
            data = tuple(
                self._expression(item, names, axes) if isinstance(item, Affine) else repr(item)
                for item in instr.data
            )
            made = (instr.op, instr.dtype.name, data, arguments)
        self.signatures[number] = made
        return made

    def _unsafe(self, instr: Instr) -> bool:
        return instr.op == "load" and self.kernel.buffers[instr.data[0]].written

    def _expression(self, value: Affine, names: dict[Var, tuple], axes: tuple[Var, ...]) -> tuple:
        terms: list[tuple] = []
        for term, coefficient in value.terms:
            if isinstance(term, Var):
                key = names.get(term, ("row", term.name, term.extent))
            elif isinstance(term, Dyn):
                key = ("dyn", self._signature(term.value, axes))
            else:
                assert isinstance(term, Div | Mod)
                inner = self._expression(term.inner, names, axes)
                key = (type(term).__name__, inner, term.divisor)
            terms.append((key, coefficient))
        return (value.constant, tuple(sorted(terms, key=repr)))


def _like(flat: Sequence[Value], shape: list[list[Value]]) -> list[list[Value]]:
    result, position = [], 0
    for held in shape:
        result.append(list(flat[position : position + len(held)]))
        position += len(held)
    return result

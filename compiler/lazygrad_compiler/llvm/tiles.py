"""Emission of a row kernel by a tiled schedule (`loops/schedule_tiles.py`).

A task computes a tile of rows, along a vector of positions or over the stage's inner axes.  The
unrolled instrs come in the order of the memory that they read, so that a loaded vector is used up
by all rows of the tile that want it before the next is loaded.  Large windows go column by column:
the weights of one stay in registers for all rows of the tile (a 7x7 window over 8x96x56x56 takes
0.7 ms instead of 1.3).  Sums add up in the same order in a tile of any size: a tile changes no bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm import reduce
from lazygrad_compiler.llvm.builder import Module, Value, const, const_lanes
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Affine, Term, Var, substitute
from lazygrad_compiler.loops.kernel import Instr, LoopKernel, Reduction
from lazygrad_compiler.loops.schedule_tiles import (
    TileSchedule,
    tile_place,
    tile_variable,
    window_points,
)
from lazygrad_compiler.loops.unroll import Unrolled

I64 = "i64"
FUSED = (dtypes.float32, dtypes.float64)
"""Sums of products in these are fused multiply-adds."""

MOST_EARLY = 12
"""Loads before a loop along a vector; more would not stay in registers, and in memory they are
already.
"""

MOST_SHORT = 4
"""Vectors along a row of the innermost loop that are written out one by one, so that the masks of
each are constants.
"""

Accumulators = list[list[list[Value]]]  # by row of the tile, by reduction


def task_count(kernel: LoopKernel, schedule: TileSchedule) -> int:
    return math.prod(_task_extents(kernel, schedule))


def _task_extents(kernel: LoopKernel, schedule: TileSchedule) -> list[int]:
    """Tasks along each row axis: tiles, chunks of the vector, rows."""
    extents = []
    vector = schedule.vector_axis if schedule.vector == "row" else None
    for position, axis in enumerate(kernel.row_axes):
        size = 1
        if position == schedule.tile_axis:
            size = schedule.tile
        elif position == vector:
            size = schedule.chunk
        extents.append(-(-axis.extent // size))
    return extents


def emit_tiles(
    module: Module, name: str, kernel: LoopKernel, schedule: TileSchedule, attributes: str
) -> None:
    _Emitter(module, name, kernel, schedule, attributes).run()


class _Emitter:
    def __init__(
        self, module: Module, name: str, kernel: LoopKernel, schedule: TileSchedule, attributes: str
    ) -> None:
        self.f = module.function(name, "void", PARAMETERS, attributes)
        self.kernel, self.schedule = kernel, schedule
        self.stage = kernel.stages[0]
        self.tiled = kernel.row_axes[schedule.tile_axis]
        self.vector = (
            kernel.row_axes[schedule.vector_axis] if schedule.vector == "row" else None
        )
        self.pointers, self.error = load_arguments(self.f, len(kernel.buffers))
        self.dtypes = [kernel.values[r.value].dtype for r in self.stage.reductions]

    def run(self) -> None:
        f, kernel, schedule = self.f, self.kernel, self.schedule
        _, begin, end, _ = f.parameters
        with f.loop(begin, end, 1, hint="task") as task:
            bindings: dict[Var, Value] = {}
            position = task.index
            extents = _task_extents(kernel, schedule)
            for place in reversed(range(len(extents))):
                last = place == 0
                bindings[kernel.row_axes[place]] = (
                    position if last else f.urem(position, extents[place])
                )
                if not last:
                    position = f.udiv(position, extents[place])
            tile, extent = schedule.tile, self.tiled.extent
            number = bindings.pop(self.tiled)
            whole = extent // tile
            if extent % tile == 0:
                self._tile(bindings | {tile_variable(self.tiled, tile): number}, tile)
            else:
                full = f.icmp("slt", number, whole)
                with f.when(full, "tile"):
                    self._tile(bindings | {tile_variable(self.tiled, tile): number}, tile)
                with f.when(f.not_(full), "rest"), f.loop(whole * tile, extent, 1) as loop:
                    self._tile(bindings | {self.tiled: loop.index}, 1)
        f.ret()

    def _tile(self, bindings: dict[Var, Value], tile: int) -> None:
        """All stages of `tile` rows, whose variables are bound.

        bindings: the row axes (the vector's: its chunk), the tiled one by its variable.
        """
        if tile == 1 and self.tiled not in bindings:
            bindings[self.tiled] = bindings.pop(tile_variable(self.tiled, 1))
        if self.vector is None:
            code = _TileCode(self, tile, False)
            points = self._points(code, bindings, None)
            accumulators = self._inner_loops(code, points)
            self._finish(code, points, accumulators)
            return
        inside = _TileCode(self, tile, True)
        if not inside.unrolled.assumed:
            self._along_vector(inside, bindings)
            return
        # most tiles touch no padding above or below: they get code that does not ask
        conditions = [
            self.f.icmp("ult", self._points(inside, bindings, None).scalar_index(index + -low),
                        high - low)
            for index, low, high in inside.unrolled.assumed
        ]  # fmt: skip
        within = functools.reduce(self.f.and_, conditions)
        with self.f.when(within, "inside"):
            self._along_vector(inside, bindings)
        with self.f.when(self.f.not_(within), "border"):
            self._along_vector(_TileCode(self, tile, False), bindings)

    def _along_vector(self, code: _TileCode, bindings: dict[Var, Value]) -> None:
        """The rows of a tile, `lanes` positions at a time."""
        f, lanes, chunk = self.f, self.schedule.lanes, self.schedule.chunk
        axis = self.vector
        assert axis is not None
        outside = self._points(code, {k: v for k, v in bindings.items() if k != axis}, axis)
        varies = dependences(code.values)
        early = [n for n in code.order if axis not in varies[n]]
        if sum(code.values[n].op == "load" for n in early) > MOST_EARLY:
            early = code.without_loads(early)
        outside.emit(early)
        outside.hoist([n for n in code.order if axis in varies[n]], [axis])
        begin = f.mul(bindings[axis], chunk)
        end = f.add(begin, chunk)
        end = f.select(f.icmp("slt", end, axis.extent), end, const(I64, axis.extent))
        with f.loop(begin, end, lanes, hint="vector") as loop:
            points = self._child(code, outside, axis)
            points.bindings[axis] = loop.index
            if axis.extent % lanes:
                iota = const_lanes("i32", list(range(lanes)))
                left = f.convert("trunc", f.sub(const(I64, axis.extent), loop.index), "i32")
                points.active = f.icmp("slt", iota, f.splat(left, lanes))
            for buffer, index, ahead in code.fetched:
                dtype = self.kernel.buffers[buffer].dtype
                points.prefetch(dtype, self.pointers[buffer], index, ahead)
            accumulators = self._take_in(code, points, self._starts(code.tile), None)
            self._finish(code, points, accumulators)

    def _starts(self, tile: int) -> Accumulators:
        return [
            [
                reduce.start(r, dtype, self.schedule.lanes)
                for r, dtype in zip(self.stage.reductions, self.dtypes, strict=True)
            ]
            for _ in range(tile)
        ]

    def _take_in(
        self, code: _TileCode, points: Points, held: Accumulators, active: Value | None
    ) -> Accumulators:
        """The accumulators after all points of the window."""
        held = [list(row) for row in held]
        for row, number, value, before in code.steps:
            points.emit(before)
            reduction, dtype, now = self.stage.reductions[number], self.dtypes[number], held[row]
            if code.is_product(reduction, value):
                factors = [points.computed[factor] for factor in code.values[value].args]
                now[number] = reduce.take_product(self.f, now[number], factors, active)
            else:
                now[number] = reduce.take_in(
                    self.f, reduction, dtype, now[number], points.computed[value], None, active
                )
        return held

    def _inner_loops(self, code: _TileCode, points: Points) -> Accumulators:
        """The accumulators after the loops over the stage's axes, the last of them a vector."""
        last_axis = self.stage.axes[self.schedule.vector_axis]
        axes = (*(axis for axis in self.stage.axes if axis != last_axis), last_axis)
        depth_of: dict[Term, int] = {axis: depth + 1 for depth, axis in enumerate(axes)}
        levels: list[list[int]] = [[] for _ in range(len(axes) + 1)]
        varies = dependences(code.values)
        for number in code.order:
            depth = max((depth_of.get(var, 0) for var in varies[number]), default=0)
            levels[depth].append(number)
        lanes = self.schedule.lanes

        def nest(outside: Points, depth: int, held: Accumulators) -> Accumulators:
            outside.emit(levels[depth])
            if depth == len(axes):
                return self._take_in(code, outside, held, outside.active)
            axis, last = axes[depth], depth == len(axes) - 1
            if not last:
                outside.hoist([n for level in levels[depth + 1 :] for n in level], axes[depth:])
            vector = axis if last else None
            whole = axis.extent // lanes * lanes if last else axis.extent
            flat = _flat(held)
            if last and whole <= MOST_SHORT * lanes:
                for begin in range(0, whole, lanes):
                    inside = self._child(code, outside, vector)
                    inside.bindings[axis] = const(I64, begin)
                    flat = _flat(nest(inside, depth + 1, _like(flat, held)))
            elif whole:
                with self.f.loop(0, whole, lanes if last else 1, flat, axis.name) as loop:
                    inside = self._child(code, outside, vector)
                    inside.bindings[axis] = loop.index
                    loop.next = _flat(nest(inside, depth + 1, _like(loop.carried, held)))
                flat = loop.results
            if whole < axis.extent:
                inside = self._child(code, outside, vector)
                inside.bindings[axis] = const(I64, whole)
                inside.active = const_lanes(
                    "i1", [lane < axis.extent - whole for lane in range(lanes)]
                )
                flat = _flat(nest(inside, depth + 1, _like(flat, held)))
            return _like(flat, held)

        return nest(points, 0, self._starts(code.tile))

    def _finish(self, code: _TileCode, points: Points, accumulators: Accumulators) -> None:
        """The reductions' results, what follows them, and the stores."""
        f = self.f
        for place, held in zip(code.places, accumulators, strict=True):
            for reduction, dtype, values in zip(
                self.stage.reductions, self.dtypes, held, strict=True
            ):
                if points.vector is None:
                    values = reduce.across_lanes(f, reduction.op, dtype, values)
                number = code.unrolled.at(reduction.result, place)
                points.computed[number] = reduce.finish(f, reduction, dtype, values)
        for number, index, buffer in code.stores:
            points.emit(code.after.get(number, []))
            f.origin(f"b{buffer}")
            points.store(
                self.kernel.buffers[buffer].dtype,
                self.pointers[buffer],
                points.place(index),
                points.computed[number],
            )
        f.origin("")

    def _points(self, code: _TileCode, bindings: dict[Var, Value], vector: Var | None) -> Points:
        points = Points(
            self.f, code.values, self.pointers, self.error, vector, self.schedule.lanes, True
        )
        points.bindings.update(bindings)
        return points

    def _child(self, code: _TileCode, outside: Points, vector: Var | None) -> Points:
        """The state inside a loop: what is computed there is not seen outside."""
        inside = self._points(code, outside.bindings, vector or outside.vector)
        inside.computed.update(outside.computed)
        inside.hoisted.update(outside.hoisted)
        inside.active = outside.active
        return inside


class _TileCode:
    """The unrolled instrs of a tile.

    steps: (row, reduction, value, instrs to compute first), in the order in which they run.
    order: everything that the steps compute, in order.  places: of the rows.  stores: (value,
    index, buffer); after: what to compute before a store of the value.  inside: as for a tile
    whose rows and windows are all within bounds, up to positions along the vector.
    """

    def __init__(self, emitter: _Emitter, tile: int, inside: bool) -> None:
        kernel, stage, axis = emitter.kernel, emitter.stage, emitter.tiled
        self.tile = tile

        def fixed(index: Affine) -> bool:
            return emitter.vector not in index.variables()

        vector = emitter.vector or stage.axes[emitter.schedule.vector_axis]
        self.unrolled = code = Unrolled(kernel.values, vector, fixed if inside else None)
        self.places = [
            code.place({axis: tile_place(axis, tile, row)}) for row in range(tile)
        ]
        windows = window_points(stage) if emitter.vector is not None else [{}]
        along = tile_variable(axis, tile) if tile > 1 else axis
        by_column = len(windows) > MOST_EARLY
        found: list[tuple[tuple[int, int], int, int, int]] = []
        first: int | None = None
        for window in windows:
            for row in range(tile):
                place = code.place({**window, axis: tile_place(axis, tile, row)})
                for number, reduction in enumerate(stage.reductions):
                    value = code.at(reduction.value, place)
                    position, step = _furthest_load(code, value, along)
                    first = position if first is None else first
                    column = (position - first) % (step // tile) if step and by_column else 0
                    found.append(((column, position), row, number, value))
        if by_column or _is_ascending(found):
            found.sort(key=lambda step: step[0])
        known: set[int] = set()
        self.steps = []
        for _, row, number, value in found:
            product = self.is_product(stage.reductions[number], value)
            wanted = code.values[value].args if product else [value]
            self.steps.append((row, number, value, code.needed(wanted, known)))
        self.order = [number for *_, before in self.steps for number in before]
        self.fetched = self._fetched(emitter, windows[len(windows) // 2]) if by_column else []
        results = [
            code.at(reduction.result, place)
            for place in self.places
            for reduction in stage.reductions
        ]
        known.update(results)
        self.stores: list[tuple[int, Affine, int]] = []
        self.after: dict[int, list[int]] = {}
        for place, row in zip(self.places, range(tile), strict=True):
            for later in kernel.stages:
                for store in later.stores:
                    value = code.at(store.value, place)
                    index = _placed(store.index, axis, tile, row)
                    self.after.setdefault(value, code.needed([value], known))
                    self.stores.append((value, index, store.buffer))

    def _fetched(
        self, emitter: _Emitter, middle: dict[Term, Affine]
    ) -> list[tuple[int, Affine, int]]:
        """What the next plane's tile reads in the middle of its windows: buffer, index, and how far
        away that plane lies.  Windows go down columns, which the processor does not fetch ahead: a
        7x7 window over 8x96x56x56 that is not in a cache takes 1.0 ms instead of 2.2.
        """
        kernel, stage, tiled = emitter.kernel, emitter.stage, emitter.tiled
        planes = [axis for axis in kernel.row_axes if axis not in (tiled, emitter.vector)]
        found: dict[tuple[int, Affine, int], None] = {}
        for row in range(self.tile):
            place = self.unrolled.place({**middle, tiled: tile_place(tiled, self.tile, row)})
            values = [self.unrolled.at(reduction.value, place) for reduction in stage.reductions]
            for number in self.unrolled.needed(values, set()):
                instr = self.values[number]
                if instr.op != "load":
                    continue
                buffer, index = instr.data
                steps = [index.coefficient(axis) for axis in planes]
                plain = all(isinstance(term, Var) for term, _ in index.terms)
                if plain and any(steps) and index.coefficient(emitter.vector) == 1:
                    found[buffer, index, next(step for step in reversed(steps) if step)] = None
        return list(found)

    @property
    def values(self) -> Sequence[Instr]:
        return self.unrolled.values

    def without_loads(self, numbers: Sequence[int]) -> list[int]:
        """Those that need no memory to be read."""
        kept: list[int] = []
        loaded: set[int] = set()
        for number in numbers:
            instr = self.values[number]
            if instr.op == "load" or loaded & set(instr.args):
                loaded.add(number)
            else:
                kept.append(number)
        return kept

    def is_product(self, reduction: Reduction, value: int) -> bool:
        """Whether the reduction takes in the value by a fused multiply-add."""
        instr = self.values[value]
        return reduction.op == "sum" and instr.op == "mul" and instr.dtype in FUSED


def _placed(index: Affine, axis: Var, tile: int, row: int) -> Affine:
    return substitute(index, {axis: tile_place(axis, tile, row)})


def _is_ascending(steps: Sequence[tuple[tuple[int, int], int, int, int]]) -> bool:
    """Whether each row reads memory in order as it is."""
    last: dict[tuple[int, int], tuple[int, int]] = {}
    for place, row, number, _ in steps:
        if last.setdefault((row, number), place) > place:
            return False
        last[row, number] = place
    return True


def _furthest_load(code: Unrolled, value: int, along: Var) -> tuple[int, int]:
    """Where in memory the value's load with most variables begins, and by how much it moves along
    one of them; zeros where it loads nothing.
    """
    loads = []
    for number in code.needed([value], set()):
        instr = code.values[number]
        if instr.op == "load":
            index = instr.data[1]
            loads.append((len(index.terms), index.constant, abs(index.coefficient(along))))
    return max(loads, default=(0, 0, 0))[1:]


def _flat(held: Accumulators) -> list[Value]:
    return [value for row in held for values in row for value in values]


def _like(flat: Sequence[Value], shape: Accumulators) -> Accumulators:
    """Values in the nesting of `shape`."""
    following = iter(flat)
    return [[[next(following) for _ in values] for values in row] for row in shape]

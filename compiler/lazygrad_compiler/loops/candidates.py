"""Candidate schedules of a kernel, for a tuner to time.

In: a kernel, its default schedule, a target.  Out: schedules that all compute the same bits, the
default first.  The knobs are the fields of the schedules themselves: register tile, blocks, parts
of k, packing and operands' sides of a contraction; lanes, chunk, grain, stores past the caches,
rows fetched ahead of a row kernel; rows and chunk of a tile of windows; strips of queries, blocks
of keys and heads of a task of attention; columns and lines of a task of a scan; tasks taken at a
time of all else.  What would add floats up in another order is not among them: lanes along a
reduction, slices of k, blocks of keys of attention forward.  (Parts of k are no such thing: sums
rest between them and go on.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from typing import Any, get_args

from lazygrad_compiler.loops.attention import VECTORS, default_cut, sizes_of
from lazygrad_compiler.loops.kernel import (
    ArrayKernel,
    ContractionKernel,
    Kernel,
    LoopKernel,
    Stage,
)
from lazygrad_compiler.loops.schedule import LoopSchedule
from lazygrad_compiler.loops.schedule_arrays import (
    AttentionSchedule,
    ScanSchedule,
    TaskSchedule,
)
from lazygrad_compiler.loops.schedule_contraction import (
    ContractionSchedule,
    Plan,
    contraction_plans,
)
from lazygrad_compiler.loops.schedule_tiles import MOST_UNROLLED, TileSchedule
from lazygrad_compiler.target import Target

Schedule = (
    LoopSchedule
    | TileSchedule
    | ContractionSchedule
    | AttentionSchedule
    | ScanSchedule
    | TaskSchedule
)

TILE_SLACK = 1.3
"""How far our count of a register tile's cycles may be off."""
PLAN_SLACK = 2.0
"""And that of a whole contraction's."""
MOST_LEADERS = 12
"""Contractions that differ in more than their blocks: in all, ..."""
MOST_ALIKE = 3
"""... with panels of one width and operands packed alike."""
MOST_BLOCKS = 4
"""Further ways to cut the best of them into tasks."""
LEAST_STREAMED = 1 << 20
"""Bytes of a kernel's buffers from which on stores past the caches are tried."""


def candidates(kernel: Kernel, target: Target, first: Schedule, tasks: int) -> list[Schedule]:
    """Schedules of the same results, bit by bit, the default (`first`) first; that alone where
    there is nothing to choose.  tasks: how many it has by default.
    """
    others: Iterable[Schedule] = ()
    if isinstance(kernel, ContractionKernel) and isinstance(first, ContractionSchedule):
        others = _contractions(kernel, target, first)
    elif isinstance(kernel, LoopKernel) and isinstance(first, TileSchedule):
        others = _tiles(kernel, target, first)
    elif isinstance(kernel, LoopKernel) and isinstance(first, LoopSchedule):
        others = _loops(kernel, target, first)
    elif isinstance(kernel, ArrayKernel) and isinstance(first, AttentionSchedule):
        others = _attention(kernel, target, first, tasks)
    elif isinstance(first, ScanSchedule):
        others = _scans(target, first, tasks)
    elif isinstance(first, TaskSchedule):
        others = (TaskSchedule(grain) for grain in _grains(first.grain, tasks))
    return list(dict.fromkeys([first, *others]))


# ---- as text


KINDS = {kind.__name__: kind for kind in get_args(Schedule)}


def written(schedule: Schedule) -> str:
    """The schedule as JSON: its kind, then its fields by name."""
    return json.dumps([type(schedule).__name__, asdict(schedule)])


def read(text: str) -> Schedule:
    """What `written` wrote.  ValueError for anything else."""
    try:
        name, values = json.loads(text)
        kind = KINDS[name]
        schedule = kind(**{field: _tuples(value) for field, value in values.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a schedule: {text[:80]} ({error})") from None
    for field in fields(schedule):
        value = getattr(schedule, field.name)
        if not _is_of(value, str(field.type)):
            raise ValueError(f"{name}.{field.name} is {value!r} and should be a {field.type}")
    return schedule


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_of(value: Any, wanted: str) -> bool:
    """Whether a value is of a field's type: a plain one, or a tuple of any number of them."""
    if wanted.startswith("tuple["):
        inside = wanted.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, tuple) and all(_is_of(item, inside) for item in value)
    return type(value).__name__ == wanted


# ---- contractions


def _contractions(
    kernel: ContractionKernel, target: Target, first: ContractionSchedule
) -> Iterator[ContractionSchedule]:
    """The best by our count of each way of packing, and of register tile and part of k, then other
    blocks for the best of those.
    """
    plans = sorted(contraction_plans(kernel, target, TILE_SLACK), key=lambda plan: plan.cycles)
    plans = [plan for plan in plans if plan.cycles <= PLAN_SLACK * plans[0].cycles]
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        s = plan.schedule
        key = (s.vectors, s.left, s.right, s.swapped, s.strips, s.kc)
        groups.setdefault(key, []).append(plan)
    alike: dict[tuple, int] = {}
    packings: dict[tuple, list[Plan]] = {}
    ranked = []
    for key, members in groups.items():
        alike[key[:3]] = alike.get(key[:3], 0) + 1
        if packings.setdefault(key[1:3], members) is not members and alike[key[:3]] <= MOST_ALIKE:
            ranked.append(members)
    leaders = [*packings.values(), *ranked][:MOST_LEADERS]
    for members in leaders:
        yield members[0].schedule
    for members in leaders[:2]:
        for plan in _spread(members[1:], MOST_BLOCKS):
            yield plan.schedule
    for grain in _scaled(first.grain, (4, 0.25)):
        yield replace(first, grain=grain)
    yield replace(first, ahead=not first.ahead)


def _spread(plans: list[Plan], most: int) -> list[Plan]:
    """Some of the plans, from the best to the worst, whose tasks differ most in size."""
    found: dict[tuple[int, int], Plan] = {}
    for plan in plans:
        size = plan.schedule.block.bit_length(), plan.schedule.nc.bit_length()
        found.setdefault(size, plan)
    return list(found.values())[:most]


def _scaled(value: int, factors: Iterable[float], least: int = 1) -> list[int]:
    return [max(int(value * factor), least) for factor in factors]


# ---- row kernels


def _is_exact(stage: Stage, kernel: LoopKernel) -> bool:
    """Whether the order in which the stage's reductions take values in changes nothing."""
    return all(
        not kernel.values[reduction.value].dtype.is_floating and reduction.position is None
        for reduction in stage.reductions
    )


def _loops(
    kernel: LoopKernel, target: Target, first: LoopSchedule
) -> Iterator[LoopSchedule]:
    nbytes = sum(buffer.size * buffer.dtype.itemsize for buffer in kernel.buffers)
    streams = (first.stream, not first.stream) if nbytes >= LEAST_STREAMED else (first.stream,)
    for along in _vectors(kernel, target, first):
        for wide in _widths(kernel, target, along):
            for stream in streams:
                yield replace(wide, stream=stream)
    for ahead in _fetching(kernel, first):
        yield replace(first, prefetch=ahead)
    for grain in _scaled(first.grain, (4, 0.25)):
        yield replace(first, grain=grain)
    if first.vector == "row":
        yield from _chunks(kernel, first)


def _vectors(
    kernel: LoopKernel, target: Target, first: LoopSchedule
) -> Iterator[LoopSchedule]:
    """The default, and vectors along other axes where no sum is taken apart by it."""
    yield first
    if kernel.block:
        return
    exact = all(_is_exact(stage, kernel) for stage in kernel.stages)
    lanes = target.lanes(32)
    if first.vector == "row" or exact:
        for position, axis in enumerate(kernel.row_axes):
            if axis.extent < 4 or (first.vector == "row" and position == first.row_order[-1]):
                continue
            order = (*(p for p in range(len(kernel.row_axes)) if p != position), position)
            chunk = min(-(-axis.extent // lanes) * lanes, max(first.chunk, 4 * lanes))
            yield replace(
                first, vector="row", lanes=(lanes,) * len(kernel.stages), row_order=order,
                chunk=max(chunk // lanes * lanes, lanes), chunks_outermost=False, prefetch=-1,
            )
    if first.vector != "inner" and exact and any(stage.axes for stage in kernel.stages):
        yield replace(
            first, vector="inner", lanes=(lanes,) * len(kernel.stages), chunk=1,
            chunks_outermost=False, row_order=tuple(range(len(kernel.row_axes))),
        )


def _widths(
    kernel: LoopKernel, target: Target, schedule: LoopSchedule
) -> Iterator[LoopSchedule]:
    """The lanes of one to eight registers, in all stages that may have another number."""
    yield schedule
    if schedule.vector == "none":
        return
    for wanted in (target.lanes(32) << power for power in range(4)):
        lanes = []
        for stage, order, now in zip(
            kernel.stages, schedule.inner_order, schedule.lanes, strict=True
        ):
            if schedule.vector == "row":
                extent = kernel.row_axes[schedule.row_order[-1]].extent
            else:
                extent = stage.axes[order[-1]].extent if order else 1
            free = schedule.vector == "row" or _is_exact(stage, kernel)
            lanes.append(wanted if free and wanted < 2 * extent else now)
        if schedule.vector == "row" and len(set(lanes)) > 1:
            continue
        if tuple(lanes) != schedule.lanes:
            chunk = schedule.chunk
            if schedule.vector == "row":
                chunk = -(-chunk // lanes[0]) * lanes[0]
            yield replace(schedule, lanes=tuple(lanes), chunk=chunk)


def _fetching(kernel: LoopKernel, first: LoopSchedule) -> Iterator[int]:
    if first.vector != "inner" or not kernel.row_axes:
        return
    yield -1
    if first.online:
        return
    for number, stage in enumerate(kernel.stages):
        if stage.axes and any(kernel.values[value].op == "load" for value in stage.values):
            yield number


def _chunks(kernel: LoopKernel, first: LoopSchedule) -> Iterator[LoopSchedule]:
    """Shorter and longer runs of rows in one task."""
    lanes = first.lanes[0]
    extent = kernel.row_axes[first.row_order[-1]].extent
    longest = -(-extent // lanes) * lanes
    for factor in (0.25, 4, 16):
        chunk = min(max(int(first.chunk * factor) // lanes * lanes, lanes), longest)
        yield replace(first, chunk=chunk, grain=max(first.grain * first.chunk // chunk, 1))
    if first.chunk < extent and math.prod(axis.extent for axis in kernel.row_axes) > extent:
        yield replace(first, chunks_outermost=not first.chunks_outermost)


# ---- tiles of windows


def _tiles(kernel: LoopKernel, target: Target, first: TileSchedule) -> Iterator[TileSchedule]:
    """Other rows, another number of them, other chunks; each row's sum keeps its order."""
    vector = first.vector_axis if first.vector == "row" else None
    window = 1
    if first.vector == "row":
        window = math.prod(axis.extent for axis in kernel.stages[0].axes)
    most = 8 if target.registers >= 32 else 4
    for position, axis in enumerate(kernel.row_axes):
        if position == vector:
            continue
        longest = min(most, axis.extent, max(MOST_UNROLLED // window, 1))
        # rows that share no loads gain by the number of sums in flight alone
        for tile in range(1, longest + 1) if position == first.tile_axis else (longest,):
            work = first.grain * first.tile
            yield replace(first, tile_axis=position, tile=tile, grain=max(work // tile, 1))
    if vector is not None:
        lanes, extent = first.lanes, kernel.row_axes[vector].extent
        for factor in (0.25, 0.5, 2):
            chunk = min(int(first.chunk * factor), -(-extent // lanes) * lanes)
            yield replace(first, chunk=max(chunk // lanes * lanes, lanes))
    for grain in _scaled(first.grain, (4, 0.25)):
        yield replace(first, grain=grain)


# ---- whole arrays


def _grains(first: int, tasks: int) -> list[int]:
    """Other numbers of tasks to take at a time, as many as all at most."""
    return [grain for grain in _scaled(first, (0.25, 2, 4, 16)) if grain < 2 * tasks]


def _scans(target: Target, first: ScanSchedule, tasks: int) -> Iterator[ScanSchedule]:
    """Of columns, fewer and more side by side: as many totals as half of the registers hold."""
    for grain in _grains(first.grain, tasks):
        yield replace(first, grain=grain)
    for factor in (0.25, 0.5, 2) if first.vectors else ():
        vectors = max(int(first.vectors * factor), 1)
        if vectors <= target.registers // 2:
            yield ScanSchedule(vectors, max(first.grain * first.vectors // vectors, 1))


def _attention(
    kernel: ArrayKernel, target: Target, first: AttentionSchedule, tasks: int
) -> Iterator[AttentionSchedule]:
    """Longer and shorter strips of queries, and backward other blocks of keys, while what a strip
    holds of a block stays in half of L2.
    """
    sizes, cut = sizes_of(kernel), default_cut(kernel, target)
    assert cut is not None
    backward = kernel.step.startswith("backward")
    pairs = {first.pairs}
    if cut.chunks == 1:  # else it would be others that go into one partial sum
        strip = VECTORS * cut.lanes
        pairs |= {count for count in (1, 2, 4) if count == 1 or count * strip < 2 * sizes.queries}
    blocks = {first.block}
    if backward:
        longest = -(-sizes.keys // cut.rows) * cut.rows
        for block in _scaled(first.block, (0.5, 2, 4)):
            blocks.add(min(-(-block // cut.rows) * cut.rows, longest))
    for count in sorted(pairs):
        for block in sorted(blocks):
            held = block * count * VECTORS * cut.lanes * sizes.wide.itemsize * (1 + backward)
            if held <= target.l2_bytes // 2:
                yield replace(first, pairs=count, block=block)
    for grain in _grains(first.grain, tasks):
        yield replace(first, grain=grain)


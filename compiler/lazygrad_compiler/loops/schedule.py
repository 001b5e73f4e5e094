"""Schedules: how a row kernel runs on a target.

In: a loop kernel and a target.  Out: a `LoopSchedule`, plain data: which axis is the vector, how
many lanes, how long a task is. A schedule can be printed, stored and given back; it never changes
what is computed except for the order in which reductions add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.loops.index import Affine, Var
from lazygrad_compiler.loops.kernel import Instr, LoopKernel
from lazygrad_compiler.target import Target

COSTS = {
    "exp": 12,
    "exp2": 12,
    "expm1": 18,
    "log": 14,
    "log2": 14,
    "log10": 14,
    "log1p": 18,
    "sin": 24,
    "cos": 24,
    "tan": 30,
    "asin": 20,
    "acos": 20,
    "atan": 20,
    "sinh": 24,
    "cosh": 24,
    "tanh": 18,
    "asinh": 30,
    "acosh": 30,
    "atanh": 24,
    "erf": 24,
    "erfc": 30,
    "pow": 60,
    "atan2": 30,
    "sigmoid": 18,
    "gcd": 200,
    "lgamma": 120,
    "digamma": 150,
    "erfinv": 120,
    "zeta": 1500,
    "gammainc": 5000,
    "gammaincc": 5000,
    "polynomial": 16,
    "poisson_quantile": 500,
    "div": 4,
    "sqrt": 6,
    "idiv": 20,
    "rem": 40,
    "philox": 60,
    "dynamic": 8,
    "const": 0,
    "row": 0,
    "checked": 0,
    "load": 1,
}
"""Vector instructions an op takes, roughly; only ratios matter."""

TASK_CYCLES = 40_000
"""Work below which handing a task to another thread costs more than it saves: some 10 microseconds.
"""


STRIDED_CHUNK = 64
"""Elements of a chunk whose loads are far apart: few enough that the cache lines they touch are
still there for the next index along which those loads are neighbours.
"""


@dataclass(frozen=True, slots=True)
class LoopSchedule:
    """vector: "row" (the last row axis), "inner" (the last axis of each stage) or "none". chunk:
    elements of a vectorised row axis in one task.  grain: tasks that a thread takes at a time.
    order: the row axes, the vectorised one last.
    """

    vector: str
    lanes: int
    chunk: int
    chunks_outermost: bool
    grain: int
    row_order: tuple[int, ...]
    inner_order: tuple[tuple[int, ...], ...]


def instr_cost(instr: Instr) -> int:
    return COSTS.get(instr.op, 1)


def contiguity(kernel: LoopKernel, var: Var) -> tuple[float, float]:
    """(stride-one minus strided accesses, stores counted twice; accesses that vary) along a
    variable.
    """
    good = varying = 0.0
    for stage in kernel.stages:
        trips = math.prod(axis.extent for axis in stage.axes)
        inner = set(stage.axes)
        accesses: list[tuple[Affine, int]] = [
            (kernel.values[n].data[1], 1) for n in stage.values if kernel.values[n].op == "load"
        ]
        accesses += [(store.index, 2) for store in stage.stores]
        for index, weight in accesses:
            variables = index.variables()
            if var not in variables:
                continue
            weight = weight * trips if variables & inner else weight
            varying += weight
            # a step of 2, to the next complex number, is contiguous but for a shuffle
            good += weight if index.coefficient(var) in (1, 2) else -weight
    total = sum(math.prod(axis.extent for axis in stage.axes) for stage in kernel.stages)
    return good / max(total, 1), varying


@dataclass(frozen=True, slots=True)
class _Choice:
    """A candidate for the vectorised axis: its position, how well it reads, its length."""

    position: int
    score: float
    extent: int


def _best_axis(kernel: LoopKernel, axes: Sequence[Var], every: bool) -> _Choice | None:
    """The axis along which most accesses are contiguous, the later one among equals; None where
    there is none (unless `every`, axes that no access varies along do not count).
    """
    best: _Choice | None = None
    for position, axis in enumerate(axes):
        good, varying = contiguity(kernel, axis)
        if not varying and not every:
            continue
        score = good - (100 if axis.extent < 4 else 0)
        if best is None or score >= best.score:
            best = _Choice(position, score, axis.extent)
    return best


def _vector_axis(row: _Choice | None, inner: Sequence[_Choice]) -> tuple[str, int]:
    """Which loops the vector runs along, and the longest of them."""
    if inner:
        long = max(choice.extent for choice in inner)
        short = long < 8 and row is not None and row.extent >= 16
        wins = not short and (
            row is None or row.extent < 4 or sum(c.score for c in inner) + 0.5 >= row.score
        )
        if wins and long > 1:
            return "inner", long
    return ("row", row.extent) if row is not None else ("none", 1)


def _lanes(kernel: LoopKernel, target: Target, vector: str, extent: int, cost: int) -> int:
    """One vector register of the kernel's main dtype; several for light reductions, whose additions
    would wait for each other otherwise.
    """
    if vector == "none":
        return 1
    sizes = [i.dtype.itemsize for i in kernel.values if i.op not in ("index", "dynamic")]
    narrowest = min((buffer.dtype.itemsize for buffer in kernel.buffers), default=4)
    base = target.lanes(8 * (min(max(sizes, default=4), 8) if narrowest >= 8 else 4))
    lanes = base
    if any(stage.reductions for stage in kernel.stages):
        most = base * (8 if vector == "row" else 4)
        while lanes < most and cost * (lanes // base) < 10 and lanes * 4 <= extent:
            lanes *= 2
    while lanes > 1 and lanes >= extent * 2:
        lanes //= 2
    return lanes


def schedule_loops(kernel: LoopKernel, target: Target) -> LoopSchedule:
    """The default schedule, by contiguity and by counting instructions."""
    cost = sum(instr_cost(instr) for instr in kernel.values)
    row = _best_axis(kernel, kernel.row_axes, every=False)
    inner: list[_Choice] = []
    inner_order: list[tuple[int, ...]] = []
    for stage in kernel.stages:
        best = _best_axis(kernel, stage.axes, every=True)
        if best is None:
            inner_order.append(())
            continue
        inner.append(best)
        inner_order.append(_last(len(stage.axes), best.position))
    vector, extent = _vector_axis(row, inner)
    lanes = _lanes(kernel, target, vector, extent, cost)
    elements = sum(math.prod(axis.extent for axis in stage.axes) for stage in kernel.stages)
    work = (max(cost, 1) / lanes * 1.5 + 0.2) * max(elements, 1)
    order, chunk, strided = tuple(range(len(kernel.row_axes))), 1, False
    if vector == "row" and row is not None:
        order = _last(len(kernel.row_axes), row.position)
        chunk = max(int(TASK_CYCLES / work) // lanes * lanes, lanes)
        chunk = min(chunk, -(-extent // lanes) * lanes)
        strided = _strided(kernel, kernel.row_axes[row.position])
        if strided:
            chunk = min(chunk, max(STRIDED_CHUNK, lanes))
        work *= chunk
    grain = max(1, int(TASK_CYCLES / work))
    return LoopSchedule(vector, lanes, chunk, strided, grain, order, tuple(inner_order))


def _strided(kernel: LoopKernel, axis: Var) -> bool:
    """Whether a load steps through memory along the axis, as in a transposition."""
    return any(
        instr.op == "load" and abs(instr.data[1].coefficient(axis)) > 2 for instr in kernel.values
    )


def _last(count: int, position: int) -> tuple[int, ...]:
    """All positions in order, the given one last."""
    return (*(p for p in range(count) if p != position), position)

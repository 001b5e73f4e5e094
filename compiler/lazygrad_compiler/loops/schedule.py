"""Schedules: how a row kernel runs on a target.

In: a loop kernel and a target.  Out: a `LoopSchedule`, plain data: which axis is the vector, how many lanes, how long a task is.
A schedule can be printed, stored and given back; it never changes what is computed except for the order in which reductions add.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.loops.index import Affine, Var
from lazygrad_compiler.loops.kernel import Instr, LoopKernel
from lazygrad_compiler.target import Target

COSTS = {"exp": 12, "exp2": 12, "expm1": 18, "log": 14, "log2": 14, "log10": 14, "log1p": 18, "sin": 24, "cos": 24, "tan": 30,
         "asin": 20, "acos": 20, "atan": 20, "sinh": 24, "cosh": 24, "tanh": 18, "asinh": 30, "acosh": 30, "atanh": 24,
         "erf": 24, "erfc": 30, "pow": 60, "atan2": 30, "div": 4, "sqrt": 6, "idiv": 20, "rem": 40, "philox": 60, "dynamic": 8,
         "const": 0, "row": 0, "checked": 0, "load": 1}
"""Vector instructions an op takes, roughly; only ratios matter."""

TASK_CYCLES = 40_000
"""Work below which handing a task to another thread costs more than it saves: some 10 microseconds."""


@dataclass(frozen=True, slots=True)
class LoopSchedule:
    """vector: "row" (the last row axis), "inner" (the last axis of each stage) or "none".
    chunk: elements of a vectorised row axis in one task.  grain: tasks that a thread takes at a time.  order: the row axes,
    the vectorised one last."""

    vector: str
    lanes: int
    chunk: int
    grain: int
    row_order: tuple[int, ...]
    inner_order: tuple[tuple[int, ...], ...]


def instr_cost(instr: Instr) -> int:
    return COSTS.get(instr.op, 1)


def contiguity(kernel: LoopKernel, var: Var) -> tuple[int, int]:
    """(stride-one minus strided accesses, stores counted twice; accesses that vary) along a variable."""
    good = varying = 0
    accesses: list[tuple[Affine, int]] = [(i.data[1], 1) for i in kernel.values if i.op == "load"]
    accesses += [(s.index, 2) for stage in kernel.stages for s in stage.stores]
    for index, weight in accesses:
        if var not in index.variables():
            continue
        varying += weight
        good += weight if index.coefficient(var) == 1 else -weight
    return good, varying


def schedule_loops(kernel: LoopKernel, target: Target) -> LoopSchedule:
    narrowest = min((buffer.dtype.itemsize for buffer in kernel.buffers), default=4)
    widest = max((i.dtype.itemsize for i in kernel.values if i.op not in ("index", "dynamic")), default=4)
    base_lanes = target.lanes(8 * max(4, min(widest, 8) if narrowest >= 8 else 4))
    cost = sum(instr_cost(instr) for instr in kernel.values)
    has_inner = any(stage.axes for stage in kernel.stages)
    reduces = any(stage.reductions for stage in kernel.stages)

    row_choice, row_score = None, (-1e9, 0)
    for position, axis in enumerate(kernel.row_axes):
        good, varying = contiguity(kernel, axis)
        score = (good if axis.extent >= 4 else good - 100, position)
        if varying and score > row_score:
            row_choice, row_score = position, score
    inner_score, inner_order = 0.0, []
    inner_long = 0
    for stage in kernel.stages:
        best, best_score = len(stage.axes) - 1, -1e9
        for position, axis in enumerate(stage.axes):
            good, _ = contiguity(kernel, axis)
            score = good + (0.5 if position == len(stage.axes) - 1 else 0) - (100 if axis.extent < 4 else 0)
            if score > best_score:
                best, best_score = position, score
        inner_order.append(tuple(p for p in range(len(stage.axes)) if p != best) + ((best,) if stage.axes else ()))
        if stage.axes:
            inner_score += best_score
            inner_long = max(inner_long, stage.axes[best].extent)

    rows = 1
    for axis in kernel.row_axes:
        rows *= axis.extent
    inner = 0
    for stage in kernel.stages:
        size = 1
        for axis in stage.axes:
            size *= axis.extent
        inner += size

    vector = "none"
    if has_inner and (row_choice is None or inner_score >= row_score[0] or kernel.row_axes[row_choice].extent < 4):
        vector = "inner"
    elif row_choice is not None:
        vector = "row"
    if vector == "inner" and inner_long < 2:
        vector = "row" if row_choice is not None else "none"
    lanes = base_lanes
    extent = inner_long if vector == "inner" else kernel.row_axes[row_choice].extent if row_choice is not None else 1
    if vector != "none":
        if reduces:
            while lanes < base_lanes * 4 and cost * (lanes // base_lanes) < 10 and lanes * 4 <= extent:
                lanes *= 2
        while lanes > 1 and lanes >= extent * 2:
            lanes //= 2
    else:
        lanes = 1
    order = tuple(range(len(kernel.row_axes)))
    chunk = 1
    per_element = max(cost, 1) / max(lanes, 1) * 1.5 + 0.2
    work_row = per_element * max(inner, 1)
    if vector == "row":
        assert row_choice is not None
        order = (*(p for p in order if p != row_choice), row_choice)
        extent = kernel.row_axes[row_choice].extent
        chunk = max(int(TASK_CYCLES / work_row) // lanes * lanes, lanes)
        chunk = min(chunk, -(-extent // lanes) * lanes)
        work_row *= chunk
    grain = max(1, int(TASK_CYCLES / work_row))
    return LoopSchedule(vector, lanes, chunk, grain, order, tuple(inner_order))

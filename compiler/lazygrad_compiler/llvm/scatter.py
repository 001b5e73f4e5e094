"""Emission of a scatter kernel: updates in row-major order onto a buffer that already holds the
base.

Order matters (the last `set` stays; sums have one order), so one position comes after the other.
Tasks split the elements of a position, and the axes of positions that no two of which meet; no two
threads touch the same element.  Where many updates go to few places, the positions are cut into a
fixed number of parts, each with a copy of the target for itself (`parts`).
"""

from __future__ import annotations

import math

from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Module, Value, const, const_lanes
from lazygrad_compiler.llvm.loops import PARAMETERS, load_arguments
from lazygrad_compiler.llvm.points import Points, dependences
from lazygrad_compiler.loops.index import Var
from lazygrad_compiler.loops.kernel import ScatterKernel
from lazygrad_compiler.target import Target

COMBINE = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}
NEUTRAL = {
    "add": lambda dtype: 0,
    "max": lambda dtype: dtype.limits()[0],
    "min": lambda dtype: dtype.limits()[1],
}


def lanes_for(kernel: ScatterKernel, target: Target) -> int:
    """Lanes along the last inner axis; 1 where there is none."""
    if not kernel.inner or kernel.inner[-1].extent < 2:
        return 1
    lanes = target.lanes(8 * max(4, kernel.buffers[kernel.target].dtype.itemsize))
    while lanes > 1 and lanes >= kernel.inner[-1].extent * 2:
        lanes //= 2
    return lanes


def task_count(kernel: ScatterKernel, target: Target) -> int:
    """One task for each vector of the last inner axis (and each index of the others)."""
    if kernel.parts > 1:
        return kernel.parts
    tasks = math.prod(v.extent for v in kernel.apart)
    if kernel.block:
        tasks *= -(-kernel.outer[-1].extent // kernel.block)
    if not kernel.inner:
        return tasks
    return math.prod(v.extent for v in kernel.inner[:-1]) * tasks * -(
        -kernel.inner[-1].extent // lanes_for(kernel, target)
    )


def grain_for(kernel: ScatterKernel, target: Target) -> int:
    if kernel.parts > 1:
        return 1
    work = math.prod(v.extent for v in kernel.outer) * (8 + len(kernel.values))
    return max(1, 40_000 // max(work, 1), task_count(kernel, target) // 16)


def emit_scatter(module: Module, name: str, kernel: ScatterKernel, target: Target) -> None:
    f = module.function(name, "void", PARAMETERS, target.function_attributes)
    pointers, error = load_arguments(f, len(kernel.buffers))
    _, begin, end, _ = f.parameters
    lanes = lanes_for(kernel, target)
    vector = kernel.inner[-1] if lanes > 1 else None
    depends = dependences(kernel.values)
    inner = set(kernel.inner)
    early = [n for n in range(len(kernel.values)) if not depends[n] & set(kernel.outer)]
    middle = [n for n in range(len(kernel.values)) if n not in early and not depends[n] & inner]
    late = [n for n in range(len(kernel.values)) if n not in early and n not in middle]
    steps, columns = kernel.outer, None
    if kernel.block:
        steps, columns = kernel.outer[:-1], kernel.outer[-1]
    count = math.prod(v.extent for v in steps)

    def positions(points: Points, begin: Value, end: Value) -> None:
        """The updates from `begin` to before `end`, in order, of the elements that the points stand
        on.
        """
        points.emit(early)
        pointers = points.pointers
        with f.loop(begin, end, 1, hint="update") as loop:
            inside = Points(f, kernel.values, pointers, error, vector, lanes, aligned=True)
            inside.bindings.update(points.bindings)
            inside.computed.update(points.computed)
            inside.active = points.active
            position = loop.index
            for var in reversed(steps):
                first = var is steps[0]
                inside.bindings[var] = position if first else f.urem(position, var.extent)
                position = position if first else f.udiv(position, var.extent)
            if columns is None:
                update(inside)
                return
            start = points.bindings[columns]
            stop = f.add(start, kernel.block)
            stop = f.select(f.icmp("slt", stop, columns.extent), stop, const("i64", columns.extent))
            with f.loop(start, stop, 1, hint="column") as column:
                inside.bindings[columns] = column.index
                update(inside)

    def update(points: Points) -> None:
        points.emit(middle)
        points.emit(late)
        write(points)

    def write(points: Points) -> None:
        buffer = kernel.buffers[kernel.target]
        place = points.place(kernel.place)
        value = points.computed[kernel.update]
        if kernel.mode != "set":
            # the index is in range by construction: `dynamic` clamps it
            old = points.load(buffer.dtype, points.pointers[kernel.target], place, None)
            value = f.splat(value, points.lanes) if points.vector is not None else value
            old = f.splat(old, points.lanes) if points.vector is not None else old
            if kernel.mode == "add" and buffer.dtype.kind == "bool":
                value = f.or_(old, value)
            else:
                value = scalar.emit_op(
                    f, COMBINE[kernel.mode], [old, value], buffer.dtype, buffer.dtype
                )
        points.store(buffer.dtype, points.pointers[kernel.target], place, value)

    def part(number: Value) -> None:
        """One part of the positions, into the part's copy."""
        buffer = kernel.buffers[kernel.target]
        size, share = buffer.size // kernel.parts, -(-count // kernel.parts)
        own = list(pointers)
        element = scalar.memory_type(buffer.dtype)
        own[kernel.target] = f.offset(pointers[kernel.target], f.mul(number, size), element)
        neutral = scalar.constant(buffer.dtype, NEUTRAL[kernel.mode](buffer.dtype))
        with f.loop(0, size, 1, hint="clear") as loop:
            place = f.offset(own[kernel.target], loop.index, element)
            f.store(neutral, place, buffer.dtype.itemsize)
        first = f.mul(number, share)
        first = f.select(f.icmp("slt", first, count), first, const("i64", count))
        past = f.add(first, share)
        past = f.select(f.icmp("slt", past, count), past, const("i64", count))
        positions(Points(f, kernel.values, own, error, None, 1, aligned=True), first, past)

    def whole(task: Value) -> None:
        """All positions, of the elements that are the task's."""
        points = Points(f, kernel.values, pointers, error, vector, lanes, aligned=True)
        position = task
        bindings: dict[Var, Value] = {}
        if kernel.inner:
            last = kernel.inner[-1]
            chunks = -(-last.extent // lanes)
            bindings[last] = f.mul(f.urem(position, chunks), lanes)
            position = f.udiv(position, chunks)
            for var in reversed(kernel.inner[:-1]):
                bindings[var] = f.urem(position, var.extent)
                position = f.udiv(position, var.extent)
        if columns is not None:
            blocks = -(-columns.extent // kernel.block)
            bindings[columns] = f.mul(f.urem(position, blocks), kernel.block)
            position = f.udiv(position, blocks)
        for var in reversed(kernel.apart):
            bindings[var] = f.urem(position, var.extent)
            position = f.udiv(position, var.extent)
        points.bindings = bindings
        if vector is not None and vector.extent % lanes:
            points.active = f.icmp(
                "slt",
                const_lanes("i64", list(range(lanes))),
                f.splat(f.sub(const("i64", vector.extent), bindings[vector]), lanes),
            )
        positions(points, const("i64", 0), const("i64", count))

    with f.loop(begin, end, 1, hint="task") as task:
        if kernel.parts > 1:
            part(task.index)
        else:
            whole(task.index)
    f.ret()

"""Emission of a scatter kernel: updates in row-major order onto a buffer that already holds the
base.

Order matters (the last `set` stays; sums have one order), so one position comes after the other.
Tasks split the elements of a position, never the positions: no two threads touch the same element.
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
    if not kernel.inner:
        return 1
    return math.prod(v.extent for v in kernel.inner[:-1]) * -(
        -kernel.inner[-1].extent // lanes_for(kernel, target)
    )


def grain_for(kernel: ScatterKernel, target: Target) -> int:
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
    outer_extents = [v.extent for v in kernel.outer]

    def positions(points: Points) -> None:
        """All updates, in order, of the elements that the points stand on."""
        points.emit(early)
        with f.loop(0, math.prod(outer_extents), 1, hint="update") as loop:
            inside = Points(f, kernel.values, pointers, error, vector, lanes, aligned=True)
            inside.bindings.update(points.bindings)
            inside.computed.update(points.computed)
            inside.active = points.active
            position = loop.index
            for var in reversed(kernel.outer):
                first = var is kernel.outer[0]
                inside.bindings[var] = position if first else f.urem(position, var.extent)
                position = position if first else f.udiv(position, var.extent)
            inside.emit(middle)
            inside.emit(late)
            write(inside)

    def write(points: Points) -> None:
        buffer = kernel.buffers[kernel.target]
        place = points.place(kernel.place)
        value = points.computed[kernel.update]
        if kernel.mode != "set":
            # the index is in range by construction: `dynamic` clamps it
            old = points.load(buffer.dtype, pointers[kernel.target], place, None)
            value = f.splat(value, points.lanes) if points.vector is not None else value
            old = f.splat(old, points.lanes) if points.vector is not None else old
            if kernel.mode == "add" and buffer.dtype.kind == "bool":
                value = f.or_(old, value)
            else:
                value = scalar.emit_op(
                    f, COMBINE[kernel.mode], [old, value], buffer.dtype, buffer.dtype
                )
        points.store(buffer.dtype, pointers[kernel.target], place, value)

    with f.loop(begin, end, 1, hint="task") as task:
        points = Points(f, kernel.values, pointers, error, vector, lanes, aligned=True)
        position: Value = task.index
        bindings: dict[Var, Value] = {}
        if kernel.inner:
            last = kernel.inner[-1]
            chunks = -(-last.extent // lanes)
            bindings[last] = f.mul(f.urem(position, chunks), lanes)
            position = f.udiv(position, chunks)
            for var in reversed(kernel.inner[:-1]):
                bindings[var] = f.urem(position, var.extent)
                position = f.udiv(position, var.extent)
        points.bindings = bindings
        if vector is not None and vector.extent % lanes:
            points.active = f.icmp(
                "slt",
                const_lanes("i64", list(range(lanes))),
                f.splat(f.sub(const("i64", vector.extent), bindings[vector]), lanes),
            )
        positions(points)
    f.ret()

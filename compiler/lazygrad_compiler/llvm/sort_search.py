"""Emission of what reads an order that is already there: searchsorted, sort_values, pick."""

from __future__ import annotations

import math

from lazygrad_compiler.llvm.arrays import Work
from lazygrad_compiler.llvm.builder import Value, const, const_lanes, vector_of
from lazygrad_compiler.llvm.sort import Emit, Step, clamped

BLOCK = 1 << 10
"""Elements a task."""


def _block(step: Step, task: Value, elements: int) -> tuple[Value, Value]:
    """The elements first..end-1 of a task."""
    f = step.f
    first = f.mul(task, BLOCK)
    end = f.add(first, BLOCK)
    return first, f.select(f.icmp("slt", end, elements), end, elements)


def emit_take(step: Step) -> Work:
    """Step `sort_values` by itself: the elements of each row in a given order."""
    f, keys = step.f, step.keys
    shape = step.kernel.shapes[0]
    length, elements = shape[-1], math.prod(shape)
    values, order, result = step.pointers
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        first, last = _block(step, task.index, elements)
        with f.loop(first, last, 1, hint="take") as loop:
            start = f.mul(f.udiv(loop.index, length), length)
            # an order that is none must not read elsewhere
            place = clamped(f, f.load("i64", f.offset(order, loop.index, "i64"), 8), length)
            place = f.offset(values, f.add(start, place), keys.stored)
            raw = f.load(keys.stored, place, keys.align)
            f.store(raw, f.offset(result, loop.index, keys.stored), keys.align)
    return Work(-(-elements // BLOCK), 16)


def emit_pick(step: Step) -> Work:
    """Step `pick`: positions out of a row's whole order, the first ones or those at given ranks."""
    f, kernel = step.f, step.kernel
    length, shape = kernel.shapes[0][-1], kernel.shapes[-1]
    wanted, elements = shape[-1], math.prod(shape)
    order, result = step.pointers[0], step.pointers[-1]
    _, begin, end, _ = f.parameters
    with f.loop(begin, end, 1, hint="task") as task:
        first, last = _block(step, task.index, elements)
        with f.loop(first, last, 1, hint="pick") as loop:
            row = f.udiv(loop.index, wanted)
            if len(step.pointers) == 3:
                rank = f.load("i64", f.offset(step.pointers[1], loop.index, "i64"), 8)
                place = clamped(f, rank, length)
            else:
                place = f.sub(loop.index, f.mul(row, wanted))
            place = f.offset(order, f.add(f.mul(row, length), place), "i64")
            f.store(f.load("i64", place, 8), f.offset(result, loop.index, "i64"), 8)
    return Work(-(-elements // BLOCK), 16)


def emit_search(step: Step) -> Work:
    """Step `searchsorted`: bisection, a vector of values at a time.

    Every value takes the same number of steps, so that there is no branch to guess wrong; what is
    found already stays where it is.  NaN comes last: everything is before it, and it before
    nothing, as in the order of `argsort` but for that NaN itself is not found.
    """
    f, kernel, keys = step.f, step.kernel, step.keys
    (side,) = kernel.attrs
    shape = kernel.shapes[1]
    length, elements = kernel.shapes[0][-1], math.prod(shape)
    single = len(kernel.shapes[0]) == 1
    wanted = shape[-1] if shape else 1
    rows, values, result = step.pointers
    _, begin, end, _ = f.parameters
    lanes = step.target.lanes(64)
    wide = vector_of("i64", lanes)
    zero = const(wide, 0)
    numbers = const_lanes("i64", range(lanes))
    predicate = "ult" if side == "left" else "ule"
    with f.loop(begin, end, 1, hint="task") as task:
        first, last = _block(step, task.index, elements)
        with f.loop(first, last, lanes, hint="values") as loop:
            place = f.add(f.splat(loop.index, lanes), numbers)
            inside = f.icmp("slt", place, f.splat(last, lanes))
            value = keys.load_lanes(f, values, loop.index, lanes, inside)
            wanted_key = keys.key(f, value)
            nan = None
            if keys.dtype.is_floating:
                top = keys.key(f, keys.carried(f, const(vector_of(keys.stored, lanes), -1)))
                nan = f.icmp("eq", wanted_key, top)
            start = zero if single else f.mul(f.udiv(place, const(wide, wanted)), length)
            low, count = zero, const(wide, length)
            with f.loop(0, length.bit_length(), 1, carried=[low, count], hint="bisect") as halves:
                low, count = halves.carried
                active = f.icmp("sgt", count, 0)
                half = f.lshr(count, 1)
                middle = f.add(start, f.add(low, half))
                reading = f.and_(active, inside)
                pointers = f.offset(rows, middle, keys.stored)
                nothing = const(vector_of(keys.stored, lanes), 0)
                raw = f.gather(nothing.type, pointers, keys.align, reading, nothing)
                before = f.icmp(predicate, keys.key(f, keys.carried(f, raw)), wanted_key)
                if nan is not None:
                    before = f.or_(before, nan)
                right = f.and_(active, before)
                halves.next = [
                    f.select(right, f.add(low, f.add(half, 1)), low),
                    f.select(right, f.sub(count, f.add(half, 1)), half),
                ]
            found = halves.results[0]
            f.masked_store(found, f.offset(result, loop.index, "i64"), 8, inside)
    return Work(-(-elements // BLOCK), 4)


STEPS: dict[str, Emit] = {
    "sort_values": emit_take,
    "pick": emit_pick,
    "searchsorted": emit_search,
}

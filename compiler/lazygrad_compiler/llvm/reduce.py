"""Accumulators of reductions: how they start, take in a value, and come together across the lanes
of a vector.

The order is fixed by the kernel alone, so the same program gives the same bits whatever the number
of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.llvm import scalar
from lazygrad_compiler.llvm.builder import Function, Value, const, element_of, lanes_of, vector_of
from lazygrad_compiler.loops.kernel import Reduction


def accumulator_dtype(dtype: DType) -> DType:
    """16-bit floats accumulate in float32."""
    return dtypes.float32 if scalar.is_narrow(dtype) else dtype


def start(reduction: Reduction, dtype: DType, lanes: int) -> list[Value]:
    """The accumulators of nothing."""
    values = [neutral(reduction.op, accumulator_dtype(dtype), lanes)]
    if reduction.op in ("argmax", "argmin"):
        values.append(const(vector_of("i64", lanes), 2**63 - 1))
    return values


def neutral(op: str, wide: DType, lanes: int) -> Value:
    """What changes nothing that it is combined with."""
    low, high = wide.limits()
    number = {"sum": 0, "prod": 1, "max": low, "min": high, "argmax": low, "argmin": high}[op]
    return scalar.constant(wide, number, lanes)


def combine(
    f: Function, op: str, dtype: DType, left: list[Value], right: list[Value]
) -> list[Value]:
    """Two accumulators of the wide dtype as one."""
    if op in ("sum", "prod"):
        return [
            scalar.emit_op(f, "add" if op == "sum" else "mul", [left[0], right[0]], dtype, dtype)
        ]
    if op in ("max", "min"):
        return [
            scalar.emit_op(
                f, "maximum" if op == "max" else "minimum", [left[0], right[0]], dtype, dtype
            )
        ]
    better = _takes_over(f, op, dtype, left, right)
    return [f.select(better, new, old) for old, new in zip(left, right, strict=True)]


def _takes_over(f: Function, op: str, dtype: DType, left: list[Value], right: list[Value]) -> Value:
    """Whether the right (value, position) is the one to keep: better, or as good and earlier; NaN
    is best of all.
    """
    (a, at), (b, bt) = left, right
    less = (
        (lambda x, y: scalar._less(f, dtype, x, y))
        if dtype is not dtypes.bool_
        else (lambda x, y: f.icmp("ult", x, y))
    )
    better = less(a, b) if op == "argmax" else less(b, a)
    worse = less(b, a) if op == "argmax" else less(a, b)
    if dtype.is_floating:
        a_nan, b_nan = f.fcmp("uno", a, a), f.fcmp("uno", b, b)
        better = f.or_(better, f.and_(b_nan, f.not_(a_nan)))
        worse = f.or_(worse, f.and_(a_nan, f.not_(b_nan)))
    equal = f.not_(f.or_(better, worse))
    return f.or_(better, f.and_(equal, f.icmp("slt", bt, at)))


def take_in(
    f: Function,
    reduction: Reduction,
    dtype: DType,
    accumulators: list[Value],
    value: Value,
    position: Value | None,
    active: Value | None,
) -> list[Value]:
    """The accumulators after one more value (or vector of values); inactive lanes stay as
    they are.
    """
    lanes = lanes_of(accumulators[0].type)
    wide = accumulator_dtype(dtype)
    new = [f.splat(scalar.widen(f, value, dtype), lanes)]
    if position is not None:
        new.append(f.splat(position, lanes))
    result = combine(f, reduction.op, wide, accumulators, new)
    if active is not None and lanes > 1:
        result = [
            f.select(active, after, before)
            for after, before in zip(result, accumulators, strict=True)
        ]
    return result


def take_product(
    f: Function, accumulators: list[Value], factors: Sequence[Value], active: Value | None
) -> list[Value]:
    """The accumulators of a sum after one more product, by a fused multiply-add."""
    (total,) = accumulators
    lanes = lanes_of(total.type)
    left, right = (f.splat(factor, lanes) for factor in factors)
    after = f.fma(left, right, total)
    if active is not None and lanes > 1:
        after = f.select(active, after, total)
    return [after]


def across_lanes(f: Function, op: str, dtype: DType, accumulators: list[Value]) -> list[Value]:
    """One scalar accumulator from a vector of them: halves fold onto each other."""
    wide = accumulator_dtype(dtype)
    lanes = lanes_of(accumulators[0].type)
    while lanes > 1:
        lower = list(range(lanes // 2))
        upper = list(range(lanes // 2, lanes))
        if lanes == 2:
            left, right = (
                [f.extract(v, 0) for v in accumulators],
                [f.extract(v, 1) for v in accumulators],
            )
        else:
            left = [f.shuffle(v, None, lower) for v in accumulators]
            right = [f.shuffle(v, None, upper) for v in accumulators]
        accumulators = combine(f, op, wide, left, right)
        lanes //= 2
    return accumulators


def finish(f: Function, reduction: Reduction, dtype: DType, accumulators: list[Value]) -> Value:
    """The reduction's value as its node's dtype."""
    if reduction.op in ("argmax", "argmin"):
        return accumulators[1]
    value = accumulators[0]
    return (
        scalar.narrow(f, value, dtype)
        if scalar.is_narrow(dtype) and element_of(value.type) == "float"
        else value
    )

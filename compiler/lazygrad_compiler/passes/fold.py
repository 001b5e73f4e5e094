"""fold-constants: operations on constants are constants, by asking the interpreter.

A constant is one number in every place, so an elementwise operation is evaluated on one element.
Reductions are folded where the result does not depend on the order of adding.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any as Anything

from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.passes.canonicalise import PRECISION, canonical_number
from lazygrad_compiler.passes.rewrite import (
    Any,
    Const,
    Op,
    RewriteRules,
    apply_op,
    full,
    full_like,
)

rules = RewriteRules("fold-constants")

ELEMENTWISE = tuple(op for op, definition in OPS.items() if definition.kind == "elementwise")


def all_constant(value: Node) -> bool:
    return all(operand.op == "const" for operand in value.inputs)


@rules.add(Op(ELEMENTWISE, ..., name="root", when=all_constant))
def elementwise_of_constants(root: Node) -> Node:
    scalars = [full(operand.attrs[0], operand.dtype, (1,)) for operand in root.inputs]
    result, = evaluate([apply_op(root, *scalars)], {})
    return full_like(root, canonical_number(result[0], root.dtype))


@rules.add(Op("where", Const(name="condition"), Any("yes"), Any("no")))
def choice_by_constant(condition: Node, yes: Node, no: Node) -> Node:
    return yes if condition.attrs[0] else no


# ---- reductions


@rules.add(Op(("sum", "prod", "max", "min"), Any("x"), name="root"))
def reduction_of_nothing(root: Node, x: Node) -> Node | None:
    if not any(x.shape[axis] == 0 for axis in root.attrs[0]):
        return None
    low, high = x.dtype.limits() if not x.dtype.is_complex else (0, 0)
    start = {"sum": 0, "prod": 1, "max": low, "min": high}[root.op]
    return full_like(root, canonical_number(start, root.dtype))


@rules.add(Op("dot", Any("x"), Any("y"), name="root"))
def contraction_of_nothing(root: Node, x: Node, y: Node) -> Node | None:
    if not any(x.shape[axis] == 0 for axis in root.attrs[2]):
        return None
    return full_like(root, canonical_number(0, root.dtype))


@rules.add(Op(("sum", "prod", "max", "min", "argmax", "argmin"), Const(name="c"), name="root"))
def reduction_of_constant(root: Node, c: Node) -> Node | None:
    count = math.prod(c.shape[axis] for axis in root.attrs[0])
    if count == 0:
        return None
    if root.op in ("argmax", "argmin"):
        return full_like(root, 0)
    if root.op in ("max", "min"):
        return full_like(root, c.attrs[0])
    value = exact_sum(c, count) if root.op == "sum" else exact_product(c, count)
    return None if value is None else full_like(root, canonical_number(value, root.dtype))


def exact_sum(c: Node, count: int) -> Anything:
    """count times the constant, where every partial sum is exact; else None."""
    value = c.attrs[0]
    if c.dtype.is_integer:
        return wrapped(int(value) * count, c)
    if not c.dtype.is_floating or not math.isfinite(value) or value == 0:
        return 0.0 if c.dtype.is_floating and value == 0 else None
    accumulator = max(PRECISION["float32"], PRECISION[c.dtype.name])
    fraction = Fraction(value)
    odd_part = abs(fraction.numerator)
    odd_part >>= (odd_part & -odd_part).bit_length() - 1
    total = fraction * count
    if odd_part * count > 2**accumulator or abs(total) > 2**100:
        return None
    return float(total)


def exact_product(c: Node, count: int) -> Anything:
    """The constant to the power of count, for integers, and for 1."""
    value = c.attrs[0]
    if c.dtype.is_integer:
        return wrapped(pow(int(value), count, 2**c.dtype.bits), c)
    return value if value == 1 and not c.dtype.is_complex else None


def wrapped(value: int, c: Node) -> int:
    """The integer that remains of a value in the dtype's bits."""
    bits = c.dtype.bits
    value %= 2**bits
    return value - 2**bits if c.dtype.kind == "signed" and value >= 2 ** (bits - 1) else value

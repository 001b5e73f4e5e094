"""canonicalise: one way to write each thing, so that later rules and hash-consing see it.

Constants are numbers of their dtype, stand on the right of commutative operations, and swallow the
movement above them; what has no elements is a constant; conversions that change nothing are gone.
The rules for movement alone are in `movement.py`, and belong to the same pass.
"""

from __future__ import annotations

from typing import Any as Anything

import numpy

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.passes.rewrite import (
    Any,
    Const,
    Op,
    RewriteRules,
    apply_op,
    full,
    full_like,
    make,
    same_number,
)

rules = RewriteRules("canonicalise")

COMMUTATIVE = ("add", "mul", "maximum", "minimum", "and", "or", "xor", "eq", "ne")


def canonical_number(value: Anything, dtype: DType) -> Anything:
    """The Python number that `value` is once stored as dtype: rounded, of the dtype's own kind."""
    with numpy.errstate(all="ignore"):
        stored = numpy.full((), value, dtype.numpy)
    if dtype.kind == "bool":
        return bool(stored)
    if dtype.is_integer:
        return int(stored)
    return complex(stored) if dtype.is_complex else float(stored)


@rules.add(Op("const", name="root"))
def canonical_constant(root: Node) -> Node | None:
    """Rounded to the dtype: 0.1 and the float32 next to it are then one constant."""
    value = canonical_number(root.attrs[0], root.dtype)
    if repr(value) == repr(root.attrs[0]):
        return None
    return full_like(root, value)


@rules.add(Op(COMMUTATIVE, Const(name="c"), Any("x"), name="root"))
def constant_to_the_right(root: Node, c: Node, x: Node) -> Node | None:
    if x.op == "const":
        return None
    if root.op in ("maximum", "minimum") and not c.dtype.is_integer and c.attrs[0] == 0:
        return None  # of 0.0 and -0.0, which one comes out depends on the order
    return apply_op(root, x, c)


@rules.add(Op("iota", name="root"))
def short_count(root: Node) -> Node | None:
    if root.shape[root.attrs[0]] != 1:
        return None
    return full_like(root, canonical_number(0, root.dtype))


NEVER_EMPTIED = ("input", "const", "gather", "scatter")
"""Indexed operations report indices out of range even where the result has no elements."""


@rules.add(Op([op for op in OPS if op not in NEVER_EMPTIED], ..., name="root",
              when=lambda value: 0 in value.shape))
def nothing_is_constant(root: Node) -> Node:
    return full_like(root, canonical_number(0, root.dtype))


# ---- movement of constants


MOVES = ("reshape", "permute", "expand", "slice", "flip", "window")


@rules.add(Op(MOVES, Const(name="c"), name="root"))
def moved_constant(root: Node, c: Node) -> Node:
    return full(c.attrs[0], c.dtype, root.shape)


@rules.add(Op("pad", Const(name="c"), name="root"))
def constant_padded_with_itself(root: Node, c: Node) -> Node | None:
    value = canonical_number(root.attrs[3], root.dtype)
    return full_like(root, value) if same_number(value, c.attrs[0]) else None


@rules.add(Op("concat", ..., name="root"))
def joined_constants(root: Node) -> Node | None:
    first = root.inputs[0]
    if any(v.op != "const" or not same_number(v.attrs[0], first.attrs[0]) for v in root.inputs):
        return None
    return full_like(root, first.attrs[0])


# ---- conversions


@rules.add(Op("cast", Any("x"), name="root"), Op("bitcast", Any("x"), name="root"))
def conversion_to_own_dtype(root: Node, x: Node) -> Node | None:
    return x if x.dtype is root.dtype else None


PRECISION = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
RANGE = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}
PART_OF_COMPLEX = {"complex64": "float32", "complex128": "float64"}


def represents(target: DType, source: DType) -> bool:
    """Whether every value of `source` survives the conversion to `target`."""
    if target is source or source.kind == "bool":
        return True
    if target.kind == "bool":
        return False
    if source.is_complex:
        return target.is_complex and target.bits >= source.bits
    wide = PART_OF_COMPLEX.get(target.name, target.name)
    if source.is_integer:
        if target.is_integer:
            same_sign = source.kind == target.kind
            return (same_sign and target.bits >= source.bits) or (
                target.kind == "signed" and target.bits > source.bits)
        # Only 16-bit integers do not fit the range of a float that has the precision for them.
        return source.bits - (source.kind == "signed") <= PRECISION[wide]
    if target.is_integer:
        return False
    return PRECISION[wide] >= PRECISION[source.name] and RANGE[wide] >= RANGE[source.name]


def converts_directly(source: DType, through: DType, target: DType) -> bool:
    """Whether source → through → target gives the bits of source → target, for every value."""
    integers = source.is_integer and through.is_integer and target.is_integer
    if integers and target.bits <= through.bits:
        return True  # wrapping twice is wrapping to the smaller
    if not represents(through, source):
        return False
    if source.is_integer and not through.is_integer and target.is_integer:
        return represents(target, source)  # floats saturate where integers wrap
    if source.is_integer and target.is_floating and target.bits == 16:
        return source.bits <= 16  # wider ones may be rounded twice on the way
    return True


@rules.add(Op("cast", Op("cast", Any("x"), name="inner"), name="root"))
def conversion_of_lossless_conversion(root: Node, inner: Node, x: Node) -> Node | None:
    if not converts_directly(x.dtype, inner.dtype, root.dtype):
        return None
    return make("cast", x, dtype=root.dtype)


@rules.add(Op("bitcast", Op("bitcast", Any("x")), name="root"))
def bits_read_twice(root: Node, x: Node) -> Node:
    return make("bitcast", x, dtype=root.dtype)

"""simplify: algebra on elementwise operations, where every bit of the result stays.

What IEEE 754 forbids is left alone: x + 0.0 (it turns -0.0 into 0.0), x * 0.0 (NaN, inf), x - x,
x / x, and every regrouping of float sums.  The bits of a NaN, its sign and payload, may change.
Constants stand on the right by now (`canonicalise.py`).
"""

from __future__ import annotations

import math

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.passes.canonicalise import canonical_number
from lazygrad_compiler.passes.rewrite import (
    Any,
    Const,
    Op,
    RewriteRules,
    apply_op,
    full_like,
    is_bool,
    is_discrete,
    is_float,
    is_integer,
    is_real,
    make,
)

rules = RewriteRules("simplify")


# ---- neutral and absorbing constants


@rules.add(Op("mul", Any("x", is_real), Const(1)), Op("div", Any("x", is_real), Const(1)),
           Op("idiv", Any("x"), Const(1)), Op("pow", Any("x", is_real), Const(1)))
def times_one(x: Node) -> Node:
    return x


@rules.add(Op("add", Any("x", is_float), Const(-0.0)), Op("sub", Any("x", is_float), Const(0.0)),
           Op(("add", "sub"), Any("x", is_integer), Const(0)),
           Op(("shl", "shr"), Any("x"), Const(0)))
def plus_nothing(x: Node) -> Node:
    """Of floats, -0.0 is neutral for adding, and 0.0 for subtracting."""
    return x


@rules.add(Op("add", Op("add", Any("x", is_float), Const(0.0), name="inner"), Const(0.0)))
def zero_added_twice(inner: Node, x: Node) -> Node:
    return inner


@rules.add(Op("mul", Any("x", is_integer), Const(0, name="zero")))
def integer_times_zero(x: Node, zero: Node) -> Node:
    return zero


@rules.add(Op("pow", Any("x", is_real), Const(0)))
def to_the_power_of_zero(x: Node) -> Node:
    """1 even for NaN, says IEEE 754."""
    return full_like(x, canonical_number(1, x.dtype))


@rules.add(Op("pow", Any("x", is_real), Const(2)))
def square(x: Node) -> Node:
    return make("mul", x, x)


@rules.add(Op("rem", Any("x", is_integer), Const(1)))
def remainder_by_one(x: Node) -> Node:
    return full_like(x, 0)


@rules.add(Op(("and", "or", "xor"), Any("x"), Const(name="c"), name="root"))
def mask_of_all_or_nothing(root: Node, x: Node, c: Node) -> Node | None:
    ones = -1 if x.dtype.kind == "signed" else x.dtype.limits()[1]
    if c.attrs[0] == 0:
        return c if root.op == "and" else x
    if c.attrs[0] == ones:
        return {"and": x, "or": c, "xor": make("not", x)}[root.op]
    return None


@rules.add(Op(("maximum", "minimum"), Any("x", is_real), Const(name="c"), name="root"))
def bound_beyond_the_range(root: Node, x: Node, c: Node) -> Node | None:
    """A bound that no value exceeds, or that all do; of floats only the former, because of NaN."""
    low, high = x.dtype.limits()
    neutral, absorbing = (low, high) if root.op == "maximum" else (high, low)
    if c.attrs[0] == neutral:
        return x
    return c if c.attrs[0] == absorbing and is_discrete(x) else None


# ---- powers of two


def has_exact_reciprocal(c: Node) -> bool:
    """A power of two whose reciprocal is a normal number of the dtype."""
    value = c.attrs[0]
    if not c.dtype.is_floating or value == 0 or not math.isfinite(value):
        return False
    mantissa, exponent = math.frexp(value)
    bits = {"float16": 14, "bfloat16": 126, "float32": 126, "float64": 1022}[c.dtype.name]
    return abs(mantissa) == 0.5 and -bits <= 1 - exponent <= bits


@rules.add(Op("div", Any("x"), Const(name="c", when=has_exact_reciprocal)))
def division_by_power_of_two(x: Node, c: Node) -> Node:
    return make("mul", x, full_like(c, 1.0 / c.attrs[0]))


def is_power_of_two(c: Node) -> bool:
    return c.dtype.kind == "unsigned" and c.attrs[0] > 0 and c.attrs[0].bit_count() == 1


@rules.add(Op(("idiv", "rem"), Any("x"), Const(name="c", when=is_power_of_two), name="root"))
def unsigned_division_by_power_of_two(root: Node, x: Node, c: Node) -> Node:
    if root.op == "rem":
        return make("and", x, full_like(c, c.attrs[0] - 1))
    return make("shr", x, full_like(c, c.attrs[0].bit_length() - 1))


# ---- signs


@rules.add(Op("neg", Op("neg", Any("x"))), Op("not", Op("not", Any("x"))))
def undone_twice(x: Node) -> Node:
    return x


@rules.add(Op("mul", Any("x", lambda x: is_real(x) and x.dtype.kind != "unsigned"), Const(-1)),
           Op("div", Any("x", is_float), Const(-1)),
           Op("sub", Const(-0.0), Any("x", is_float)),
           Op("sub", Const(0), Any("x", is_integer)))
def times_minus_one(x: Node) -> Node:
    return make("neg", x)


@rules.add(Op("add", Any("x"), Op("neg", Any("y"))), Op("add", Op("neg", Any("y")), Any("x")))
def addition_of_negative(x: Node, y: Node) -> Node:
    return make("sub", x, y)


@rules.add(Op("sub", Any("x"), Op("neg", Any("y"))))
def subtraction_of_negative(x: Node, y: Node) -> Node:
    return make("add", x, y)


@rules.add(Op(("mul", "div"), Op("neg", Any("x", is_real)), Op("neg", Any("y")), name="root"))
def both_negative(root: Node, x: Node, y: Node) -> Node:
    return apply_op(root, x, y)


@rules.add(Op("mul", Op("neg", Any("x", is_real)), Const(name="c"), name="root"),
           Op("div", Op("neg", Any("x", is_real)), Const(name="c"), name="root"))
def negative_into_constant(root: Node, x: Node, c: Node) -> Node:
    return apply_op(root, x, make("neg", c))


@rules.add(Op("abs", Op(("abs", "neg"), Any("x", lambda x: x.dtype.kind != "unsigned"))))
def absolute_of_sign_change(x: Node) -> Node:
    return make("abs", x)


@rules.add(Op("abs", Any("x", lambda x: x.dtype.kind == "unsigned")))
def absolute_of_unsigned(x: Node) -> Node:
    return x


ROUNDING = ("floor", "ceil", "trunc", "round")


@rules.add(Op(ROUNDING, Op(ROUNDING, Any("x"), name="inner")))
def rounded_twice(inner: Node, x: Node) -> Node:
    return inner


# ---- an operand twice


@rules.add(Op(("maximum", "minimum", "and", "or"), Any("x"), Any("x")))
def same_of_two(x: Node) -> Node:
    return x


@rules.add(Op(("sub", "xor"), Any("x", is_discrete), Any("x")))
def difference_of_same(x: Node) -> Node:
    return full_like(x, canonical_number(0, x.dtype))


@rules.add(Op(("lt", "ne", "le", "eq"), Any("x"), Any("x"), name="root"))
def comparison_of_same(root: Node, x: Node) -> Node | None:
    """x < x never holds; the others depend on whether x is NaN."""
    if root.op == "lt":
        return full_like(root, False)
    return full_like(root, root.op in ("le", "eq")) if is_discrete(x) else None


EXTREMES = ("maximum", "minimum")


@rules.add(Op(EXTREMES, Op(EXTREMES, Any("x"), Const(name="c"), name="inner"), Const(name="c"),
              name="root"))
def bounded_twice(root: Node, inner: Node, x: Node, c: Node) -> Node | None:
    return inner if inner.op == root.op else None


REGROUPED = ("add", "mul", "and", "or", "xor", "maximum", "minimum")


@rules.add(Op(REGROUPED, Op(REGROUPED, Any("x", is_discrete), Const(name="b"), name="inner"),
              Const(name="c"), name="root"))
def constants_grouped(root: Node, inner: Node, x: Node, b: Node, c: Node) -> Node | None:
    """(x + b) + c = x + (b + c), of integers."""
    return apply_op(root, x, apply_op(root, b, c)) if inner.op == root.op else None


# ---- bools


@rules.add(Op(("eq", "ne"), Any("x", is_bool), Const(name="c"), name="root"))
def comparison_with_bool(root: Node, x: Node, c: Node) -> Node:
    return x if bool(c.attrs[0]) == (root.op == "eq") else make("not", x)


@rules.add(Op("not", Op(("eq", "ne", "lt", "le"), Any("x"), Any("y"), name="inner")))
def opposite_comparison(inner: Node, x: Node, y: Node) -> Node | None:
    """For floats only of eq and ne: a comparison with NaN and its swapped one are both false."""
    if inner.op in ("eq", "ne"):
        return make("ne" if inner.op == "eq" else "eq", x, y)
    return make("le" if inner.op == "lt" else "lt", y, x) if is_discrete(x) else None


@rules.add(Op("where", Any("condition"), Any("x"), Any("x")))
def choice_of_same(condition: Node, x: Node) -> Node:
    return x


@rules.add(Op("where", Op("not", Any("condition")), Any("x"), Any("y")))
def choice_by_opposite(condition: Node, x: Node, y: Node) -> Node:
    return make("where", condition, y, x)


@rules.add(Op("where", Any("condition"), Const(name="x", when=is_bool), Const(name="y")))
def choice_of_bools(condition: Node, x: Node, y: Node) -> Node:
    if x is y:
        return x
    return condition if x.attrs[0] else make("not", condition)


CONDITION = Any("condition")


@rules.add(Op("where", CONDITION, Op("where", CONDITION, Any("x"), Any("never")), Any("y")),
           Op("where", CONDITION, Any("x"), Op("where", CONDITION, Any("never"), Any("y"))))
def choice_made_before(condition: Node, x: Node, y: Node, never: Node) -> Node:
    return make("where", condition, x, y)

"""Gradients of elementwise ops.

A unary op has a row in `DERIVATIVES`: (at, x, y, g) -> gradient of x, where y is the forward
value, which formulas reuse where they can (exp, tanh, sqrt). Steps (sign, floor, …) have no row
of substance: None.

Formulas that would meet 0 * inf choose a harmless operand first instead of masking the result,
so that they can themselves be differentiated.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import ml_dtypes

from lazygrad_compiler.autodiff.vjp_build import (
    REAL_OF,
    Builder,
    Gradients,
    Needed,
    Rule,
    is_const,
)
from lazygrad_compiler.ir.node import Node

Derivative = Callable[[Builder, Node, Node, Node], Node]

LN2, LN10 = math.log(2.0), math.log(10.0)


def one_minus_square(at: Builder, x: Node) -> Node:
    """1 - x², as (1 - x)(1 + x): no cancellation near 1."""
    return at.mul(at.one_minus(x), at.shift(x, 1))


def arc_cosine_root(at: Builder, x: Node) -> Node:
    """sqrt(x² - 1); of complex numbers on the branch that acosh takes."""
    below, above = at.shift(x, -1), at.shift(x, 1)
    if x.dtype.is_complex:
        return at.mul(at.op("sqrt", below), at.op("sqrt", above))
    return at.op("sqrt", at.mul(below, above))


def bell(at: Builder, x: Node) -> Node:
    """2 / sqrt(pi) * exp(-x²), the derivative of erf."""
    return at.scale(at.op("exp", at.neg(at.square(x))), 2.0 / math.sqrt(math.pi))


DERIVATIVES: dict[str, Derivative] = {
    "neg": lambda at, x, y, g: at.neg(g),
    "sqrt": lambda at, x, y, g: at.div(g, at.scale(y, 2)),
    "exp": lambda at, x, y, g: at.mul(g, y),
    "exp2": lambda at, x, y, g: at.scale(at.mul(g, y), LN2),
    "expm1": lambda at, x, y, g: at.mul(g, at.shift(y, 1)),
    "log": lambda at, x, y, g: at.div(g, x),
    "log2": lambda at, x, y, g: at.div(g, at.scale(x, LN2)),
    "log10": lambda at, x, y, g: at.div(g, at.scale(x, LN10)),
    "log1p": lambda at, x, y, g: at.div(g, at.shift(x, 1)),
    "sin": lambda at, x, y, g: at.mul(g, at.op("cos", x)),
    "cos": lambda at, x, y, g: at.neg(at.mul(g, at.op("sin", x))),
    "tan": lambda at, x, y, g: at.mul(g, at.shift(at.square(y), 1)),
    "asin": lambda at, x, y, g: at.div(g, at.op("sqrt", one_minus_square(at, x))),
    "acos": lambda at, x, y, g: at.neg(at.div(g, at.op("sqrt", one_minus_square(at, x)))),
    "atan": lambda at, x, y, g: at.div(g, at.shift(at.square(x), 1)),
    "sinh": lambda at, x, y, g: at.mul(g, at.op("cosh", x)),
    "cosh": lambda at, x, y, g: at.mul(g, at.op("sinh", x)),
    "tanh": lambda at, x, y, g: at.mul(g, at.one_minus(at.square(y))),
    "asinh": lambda at, x, y, g: at.div(g, at.op("sqrt", at.shift(at.square(x), 1))),
    "acosh": lambda at, x, y, g: at.div(g, arc_cosine_root(at, x)),
    "atanh": lambda at, x, y, g: at.div(g, one_minus_square(at, x)),
    "erf": lambda at, x, y, g: at.mul(g, bell(at, x)),
    "sigmoid": lambda at, x, y, g: at.mul(g, at.mul(y, at.one_minus(y))),
    "erfc": lambda at, x, y, g: at.neg(at.mul(g, bell(at, x))),
}


def unary(derivative: Derivative) -> Rule:
    return lambda at, forward, g, needed: (derivative(at, forward.inputs[0], forward, g),)


def step(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """Ops that are flat wherever they have a derivative."""
    return (None,)


def add(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return g, g


def sub(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return g, at.neg(g) if needed[1] else None


def mul(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    x, y = forward.inputs
    return at.mul(g, y) if needed[0] else None, at.mul(g, x) if needed[1] else None


def div(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    of_x = at.div(g, forward.inputs[1])
    return of_x, at.neg(at.mul(of_x, forward)) if needed[1] else None


def rem(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    x, y = forward.inputs
    return g, at.neg(at.mul(g, at.op("trunc", at.div(x, y)))) if needed[1] else None


def extremum(larger: bool) -> Rule:
    """maximum and minimum: half to each where they are equal, all to both where one is NaN."""
    def rule(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
        x, y = forward.inputs
        if x is y:
            return g, None
        share = at.where(at.compare("eq", x, y), at.scale(g, 0.5), g)
        first, second = (x, y) if larger else (y, x)
        loses, wins = at.compare("lt", first, second), at.compare("lt", second, first)
        return (at.where(loses, at.zeros(g), share) if needed[0] else None,
                at.where(wins, at.zeros(g), share) if needed[1] else None)
    return rule


def power_of_constant_exponent(at: Builder, forward: Node, g: Node) -> Node | None:
    x, exponent = forward.inputs
    number = exponent.attrs[0]
    if number == 0:
        return None
    if number == 1:
        return g
    if number == 0.5:
        return at.div(at.scale(g, 0.5), forward)
    if number == -1:
        return at.neg(at.mul(g, at.square(forward)))
    return at.mul(g, at.scale(at.power(x, number - 1), number))


def power_of_base(at: Builder, forward: Node, g: Node) -> Node | None:
    """g * y * x^(y-1): 0 for y = 0, also where 1/x is not finite."""
    x, y = forward.inputs
    if is_const(y):
        return power_of_constant_exponent(at, forward, g)
    if x.dtype.is_complex:
        invertible = at.compare("ne", x, 0)
    else:
        smallest = 2.0 / float(ml_dtypes.finfo(x.dtype.numpy).max)
        invertible = at.compare("lt", at.like(x, smallest), at.op("abs", x))
    flat = at.op("and", at.compare("eq", y, 0), at.op("not", invertible))
    base = at.where(flat, at.like(x, 1), x)
    return at.mul(g, at.mul(y, at.op("pow", base, at.shift(y, -1))))


def power_of_exponent(at: Builder, forward: Node, g: Node) -> Node:
    """g * x^y * log(x): 0 for x = 0 and y >= 0, where x^y does not depend on y (or jumps)."""
    x, y = forward.inputs
    if is_const(x):
        number = x.attrs[0]
        if x.dtype.is_complex and number != 0:
            return at.mul(g, at.mul(forward, at.like(x, cmath.log(number))))
        if not x.dtype.is_complex and 0 < number < math.inf:
            return at.mul(g, at.scale(forward, math.log(number)))
    size = at.cast(y, REAL_OF.get(y.dtype, y.dtype))
    flat = at.op("and", at.compare("eq", x, 0), at.compare("le", at.zeros(size), size))
    base = at.where(flat, at.like(x, 1), x)
    return at.mul(g, at.mul(forward, at.op("log", base)))


def pow_(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (power_of_base(at, forward, g) if needed[0] else None,
            power_of_exponent(at, forward, g) if needed[1] else None)


def atan2(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """(x, -y) / (x² + y²) for the point (y, x); 0 at the origin, as torch has it."""
    y, x = forward.inputs
    squares = at.add(at.square(y), at.square(x))
    squares = at.where(at.compare("eq", squares, 0), at.like(squares, 1), squares)
    share = at.div(g, squares)
    return (at.mul(share, x) if needed[0] else None,
            at.neg(at.mul(share, y)) if needed[1] else None)


def where(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    condition, zeros = forward.inputs[0], at.zeros(g)
    return (None, at.where(condition, g, zeros) if needed[1] else None,
            at.where(condition, zeros, g) if needed[2] else None)


def cast(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.cast(g, forward.inputs[0].dtype),)


RULES: dict[str, Rule] = {
    **{name: unary(derivative) for name, derivative in DERIVATIVES.items()},
    **dict.fromkeys(("sign", "floor", "ceil", "trunc", "round"), step),
    "add": add, "sub": sub, "mul": mul, "div": div, "rem": rem,
    "maximum": extremum(larger=True), "minimum": extremum(larger=False),
    "pow": pow_, "atan2": atan2, "where": where, "cast": cast,
}

"""Bessel and Airy functions.

Near zero they are power series or fitted polynomials in x², far out a slow factor (a polynomial in
1/x or 1/x², fitted) times what oscillates, grows or decays (Abramowitz and Stegun 9.2, 9.7, 10.4).
Measured against mpmath in float64: modified functions 1e-15 relative; J, Y and Ai 1e-15 of the
largest nearby value, so absolute next to their zeros, and growing with x like the phase's rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lazygrad._core import graph
from lazygrad._core.context import METHODS
from lazygrad.functional._special import fitted, polynomial, public, safe
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir.node import Node

INPLACE += ["i0"]


def _series(order: int, terms: int) -> tuple[float, ...]:
    """I0(x), or I1(x) / x, in powers of x²."""
    return tuple(
        1 / (4.0**k * math.factorial(k) * math.factorial(k + order) * 2**order)
        for k in range(terms)
    )


FULL = {order: _series(order, 27) for order in (0, 1)}
"""Up to |x| = 8."""
SHORT = {order: _series(order, 15) for order in (0, 1)}
"""Up to |x| = 2."""


def _square(x: Node) -> Node:
    return graph.mul(x, x)


def _size(x: Node) -> Node:
    return graph.unary("abs", x)


def _over_root(value: Node, x: Node) -> Node:
    return graph.div(value, graph.unary("sqrt", x))


# ---- modified Bessel functions


def _modified_first(order: int, scaled: bool, x: Node) -> Node:
    size = _size(x)
    near = graph.binary("lt", size, 8)
    inside = safe(near, x, 0.0)
    small = polynomial(_square(inside), FULL[order])
    if order:
        small = graph.mul(small, inside)
    outside = graph.where(near, 8.0, size)
    inverse = graph.div(graph.like(1, x), outside)
    large = _over_root(fitted(f"i{order}_tail", inverse), outside)
    if scaled:
        small = graph.mul(small, graph.unary("exp", graph.unary("neg", _size(inside))))
    else:
        # in two factors: the exponential overflows before the function does
        half = graph.unary("exp", graph.mul(outside, 0.5))
        large = graph.mul(graph.mul(large, half), half)
    if order:
        large = graph.mul(large, graph.unary("sign", x))
    result = graph.where(near, small, large)
    if scaled:
        return result
    infinite = graph.binary("eq", size, math.inf)
    return graph.where(infinite, x if order else size, result)


def _modified_second(order: int, scaled: bool, x: Node) -> Node:
    near = graph.binary("le", x, 2)
    inside = graph.where(near, x, 1.0)
    square = _square(inside)
    logarithm = graph.unary("log", graph.mul(inside, 0.5))
    first = polynomial(square, SHORT[order])
    rest = fitted(f"k{order}_rest", square)
    if order == 0:
        small = graph.sub(rest, graph.mul(logarithm, first))
    else:
        grown = graph.mul(inside, graph.add(graph.mul(logarithm, first), rest))
        small = graph.add(graph.div(graph.like(1, x), inside), grown)
        # the product is 0 times infinity at 0
        small = graph.where(graph.binary("eq", inside, 0), math.inf, small)
    if scaled:
        small = graph.mul(small, graph.unary("exp", inside))
    outside = graph.where(near, 2.0, x)
    inverse = graph.div(graph.like(1, x), outside)
    large = _over_root(fitted(f"k{order}_tail", inverse), outside)
    if not scaled:
        large = graph.mul(large, graph.unary("exp", graph.unary("neg", outside)))
    return graph.where(near, small, large)


# ---- Bessel functions


def _slow_parts(order: int, size: Node) -> tuple[Node, Node, Node, Node]:
    """(P, Q, sin + cos, sin - cos) for size >= 5, over sqrt(pi size)."""
    square = graph.div(graph.like(1, size), _square(size))
    root = graph.unary("sqrt", graph.mul(size, math.pi))
    p = graph.div(fitted(f"p{order}", square), root)
    q = graph.div(graph.div(fitted(f"q{order}", square), size), root)
    sine, cosine = graph.unary("sin", size), graph.unary("cos", size)
    return p, q, graph.add(sine, cosine), graph.sub(sine, cosine)


def _outside(x: Node, near: Node) -> tuple[Node, Node]:
    """(arguments of the far formula, where they are infinite)."""
    infinite = graph.binary("eq", x, math.inf)
    return graph.where(graph.make("or", near, infinite), 5.0, x), infinite


def _bessel_first(order: int, x: Node) -> Node:
    size = _size(x)
    near = graph.binary("lt", size, 5)
    inside = safe(near, x, 0.0)
    small = fitted(f"j{order}", _square(inside))
    far, infinite = _outside(size, near)
    p, q, total, difference = _slow_parts(order, far)
    if order == 0:
        large = graph.sub(graph.mul(p, total), graph.mul(q, difference))
    else:
        small = graph.mul(small, inside)
        large = graph.add(graph.mul(p, difference), graph.mul(q, total))
        large = graph.mul(large, graph.unary("sign", x))
    return graph.where(infinite, 0.0, graph.where(near, small, large))


def _bessel_second(order: int, x: Node) -> Node:
    near = graph.binary("lt", x, 5)
    inside = graph.where(near, x, 1.0)
    square = _square(inside)
    logarithm = graph.mul(graph.unary("log", inside), 2 / math.pi)
    first, rest = fitted(f"j{order}", square), fitted(f"y{order}_rest", square)
    small = graph.add(graph.mul(logarithm, first), rest)
    if order:
        pole = graph.div(graph.like(-2 / math.pi, x), inside)
        small = graph.add(graph.mul(small, inside), pole)
        small = graph.where(graph.binary("eq", inside, 0), -math.inf, small)
    far, infinite = _outside(x, near)
    p, q, total, difference = _slow_parts(order, far)
    large = graph.add(graph.mul(p, difference), graph.mul(q, total)) if order == 0 else \
        graph.sub(graph.mul(q, difference), graph.mul(p, total))
    return graph.where(infinite, 0.0, graph.where(near, small, large))


# ---- Airy


def _power_of_three_halves(x: Node) -> Node:
    """2/3 x^(3/2)."""
    return graph.mul(graph.mul(x, graph.unary("sqrt", x)), 2 / 3)


@public
def airy_ai(x: Node) -> Node:
    """The Airy function Ai."""
    right, left = graph.make("le", graph.like(2, x), x), graph.binary("lt", x, -4.5)
    low = graph.binary("lt", x, -1.25)
    between = graph.make("and", low, graph.unary("not", left))
    center = graph.unary("not", graph.make("or", right, low))
    result = graph.where(between, fitted("airy_low", safe(between, x, -2.0)),
                         fitted("airy_middle", safe(center, x, 0.0)))
    finite = graph.binary("lt", _size(x), 1e200)
    above = graph.where(graph.make("and", right, finite), x, 2.0)
    zeta = _power_of_three_halves(above)
    fourth = graph.unary("sqrt", graph.unary("sqrt", above))
    tail = fitted("airy_tail", graph.div(graph.like(1, x), zeta))
    decay = graph.unary("exp", graph.unary("neg", zeta))
    tail = graph.div(graph.mul(graph.mul(tail, decay), 0.5 / math.sqrt(math.pi)), fourth)
    below = graph.where(graph.make("and", left, finite), graph.unary("neg", x), 4.5)
    zeta = _power_of_three_halves(below)
    square = graph.div(graph.like(1, x), _square(zeta))
    p, q = fitted("airy_p", square), graph.div(fitted("airy_q", square), zeta)
    sine, cosine = graph.unary("sin", zeta), graph.unary("cos", zeta)
    waves = graph.add(graph.mul(graph.add(sine, cosine), p),
                      graph.mul(graph.sub(sine, cosine), q))
    size = graph.mul(graph.unary("sqrt", graph.unary("sqrt", below)), math.sqrt(2 * math.pi))
    result = graph.where(left, graph.div(waves, size), graph.where(right, tail, result))
    vanished = graph.make("le", graph.like(1e200, x), _size(x))
    return graph.where(vanished, 0.0, graph.where(graph.make("ne", x, x), x, result))


def _named(name: str, about: str, compute: Callable[[Node], Node]) -> Callable:
    compute.__name__, compute.__doc__ = name, about
    return public(compute)


def _modified(name: str, order: int, scaled: bool, first: bool = True) -> Callable:
    kind = _modified_first if first else _modified_second
    about = f"The modified Bessel function of the {'first' if first else 'second'} kind, order " \
        f"{order}" + (f", times exp({'-|x|' if first else 'x'})." if scaled else ".")
    return _named(name, about, lambda x: kind(order, scaled, x))


def _bessel(name: str, order: int, first: bool) -> Callable:
    kind = _bessel_first if first else _bessel_second
    about = f"The Bessel function of the {'first' if first else 'second'} kind, order {order}."
    return _named(name, about, lambda x: kind(order, x))


i0, i0e = _modified("i0", 0, False), _modified("i0e", 0, True)
i1, i1e = _modified("i1", 1, False), _modified("i1e", 1, True)
modified_bessel_i0, modified_bessel_i1 = i0, i1
modified_bessel_k0 = _modified("modified_bessel_k0", 0, False, False)
modified_bessel_k1 = _modified("modified_bessel_k1", 1, False, False)
scaled_modified_bessel_k0 = _modified("scaled_modified_bessel_k0", 0, True, False)
scaled_modified_bessel_k1 = _modified("scaled_modified_bessel_k1", 1, True, False)
bessel_j0, bessel_j1 = _bessel("bessel_j0", 0, True), _bessel("bessel_j1", 1, True)
bessel_y0, bessel_y1 = _bessel("bessel_y0", 0, False), _bessel("bessel_y1", 1, False)
METHODS["i0"] = i0

__all__ = ["i0"]

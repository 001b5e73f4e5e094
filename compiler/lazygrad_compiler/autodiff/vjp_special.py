"""Gradients of the special functions.

With respect to the order of `zeta`, the shape of the incomplete gamma functions and the degree of a
polynomial there are none: asking for the first two is an error, degrees are whole numbers.
"""

from __future__ import annotations

import math

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.autodiff.vjp_elementwise import Derivative, unary
from lazygrad_compiler.ir.node import IRError, Node
from lazygrad_compiler.ir.ops import ORTHOGONAL_POLYNOMIALS


def trigamma(at: Builder, x: Node) -> Node:
    """The derivative of digamma."""
    return at.op("zeta", at.like(x, 2), x)


def inverse_bell(at: Builder, y: Node) -> Node:
    """sqrt(pi) / 2 * exp(y²), the derivative of erfinv where it is y."""
    return at.scale(at.op("exp", at.square(y)), math.sqrt(math.pi) / 2)


DERIVATIVES: dict[str, Derivative] = {
    "lgamma": lambda at, x, y, g: at.mul(g, at.op("digamma", x)),
    "digamma": lambda at, x, y, g: at.mul(g, trigamma(at, x)),
    "erfinv": lambda at, x, y, g: at.mul(g, inverse_bell(at, y)),
}


def polynomial(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """The polynomial of the derivative."""
    derived = tuple(k * number for k, number in enumerate(forward.attrs[0]))[1:]
    if not derived:
        return (None,)
    return (at.mul(g, at.op("polynomial", forward.inputs[0], attrs=(derived,))),)


def copysign(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """Whether the sign of x was turned; y only lends its sign, nothing flows to it."""
    x, _ = forward.inputs
    return at.mul(g, at.mul(at.op("sign", x), at.op("sign", forward))), None


def next_after(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """As x but for its last bit."""
    return g, None


def step(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """Flat wherever there is a derivative."""
    return None, None


def refuse(forward: Node, argument: str) -> IRError:
    return IRError(f"[{forward.op}] {forward.op} has no gradient with respect to {argument}; "
                   "detach it")


def zeta(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    s, q = forward.inputs
    if needed[0]:
        raise refuse(forward, "its first argument")
    return None, at.neg(at.mul(g, at.mul(s, at.op("zeta", at.shift(s, 1), q))))


def incomplete_gamma(upper: bool) -> Rule:
    def rule(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
        a, x = forward.inputs
        if needed[0]:
            raise refuse(forward, "its first argument")
        exponent = at.mul(at.shift(a, -1), at.op("log", x))
        exponent = at.sub(at.sub(exponent, x), at.op("lgamma", a))
        flow = at.mul(g, at.op("exp", exponent))
        return None, at.neg(flow) if upper else flow
    return rule


# ---- orthogonal polynomials: derivatives by neighbouring degrees (Abramowitz and Stegun 22.8)


def slope_over(at: Builder, numerator: Node, divisor: Node, limit: Node) -> Node:
    """numerator / divisor, and the limit where the divisor is zero."""
    pole = at.compare("eq", divisor, 0)
    return at.where(pole, limit, at.div(numerator, at.where(pole, at.like(divisor, 1), divisor)))


def at_the_end(at: Builder, x: Node, n: Node, size: Node) -> Node:
    """size * x^(n + 1) for x = 1 or -1."""
    half = at.scale(n, 0.5)
    even = at.compare("eq", at.op("floor", half), half)
    return at.where(even, at.mul(size, x), size)


def slope_of_second_kind(at: Builder, x: Node, n: Node) -> Node:
    """The derivative of chebyshev_u."""
    above = at.shift(n, 1)
    numerator = at.sub(at.mul(above, at.op("chebyshev_t", x, above)),
                       at.mul(x, at.op("chebyshev_u", x, n)))
    size = at.scale(at.mul(at.mul(n, above), at.shift(n, 2)), 1 / 3)
    return slope_over(at, numerator, at.shift(at.square(x), -1), at_the_end(at, x, n, size))


def slope_of_legendre(at: Builder, x: Node, n: Node) -> Node:
    numerator = at.sub(at.mul(x, at.op("legendre", x, n)),
                       at.op("legendre", x, at.shift(n, -1)))
    size = at.scale(at.mul(n, at.shift(n, 1)), 0.5)
    return slope_over(at, at.mul(n, numerator), at.shift(at.square(x), -1),
                      at_the_end(at, x, n, size))


def slope_of_laguerre(at: Builder, x: Node, n: Node) -> Node:
    difference = at.sub(at.op("laguerre", x, n), at.op("laguerre", x, at.shift(n, -1)))
    return slope_over(at, at.mul(n, difference), x, at.neg(n))


def slope(name: str, at: Builder, x: Node, n: Node) -> Node:
    below = at.shift(n, -1)
    if name == "chebyshev_t":
        return at.mul(n, at.op("chebyshev_u", x, below))
    if name == "hermite_h":
        return at.scale(at.mul(n, at.op(name, x, below)), 2)
    if name == "hermite_he":
        return at.mul(n, at.op(name, x, below))
    if name == "laguerre":
        return slope_of_laguerre(at, x, n)
    if name == "legendre":
        return slope_of_legendre(at, x, n)
    own = slope_of_second_kind(at, x, n)
    if name == "chebyshev_u":
        return own
    neighbour = slope_of_second_kind(at, x, below)
    return at.sub(own, neighbour) if name == "chebyshev_v" else at.add(own, neighbour)


def orthogonal(name: str) -> Rule:
    def rule(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
        x, degree = forward.inputs
        n = at.op("trunc", degree)
        flat = at.compare("lt", n, 1)
        safe = at.where(flat, at.like(n, 1), n)
        return at.where(flat, at.zeros(g), at.mul(g, slope(name, at, x, safe))), None
    return rule


RULES: dict[str, Rule] = {
    **{name: unary(derivative) for name, derivative in DERIVATIVES.items()},
    "polynomial": polynomial, "copysign": copysign, "nextafter": next_after, "zeta": zeta,
    "gammainc": incomplete_gamma(upper=False), "gammaincc": incomplete_gamma(upper=True),
    "poisson_quantile": step,
    **{name: orthogonal(name) for name in ORTHOGONAL_POLYNOMIALS},
}

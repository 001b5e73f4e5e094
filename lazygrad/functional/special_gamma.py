"""Special functions around gamma, logarithms, the error function and orthogonal polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import index as whole_number
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, method, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node, floating
from lazygrad.functional._special import fitted, operands, polynomial, public, real_node, safe
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node

INPLACE += ["lgamma", "digamma", "erfinv", "polygamma", "mvlgamma", "igamma", "igammac",
            "xlogy", "logit", "sinc"]


# ---- gamma and its relatives


def _single(name: str, about: str) -> Callable[[Tensor], Tensor]:
    def apply(input: Tensor) -> Tensor:
        return wrap(graph.unary(name, real_node(name, input)))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = about
    return method(apply)


lgamma = _single("lgamma", "log |gamma(x)|, infinite at 0, -1, -2, …; within 4 ulp, near the zeros "
                 "at negative arguments within 1e-15 of the terms that cancel.")
digamma = _single("digamma", "The derivative of log(gamma(x)); NaN at -1, -2, …; within 4 ulp, "
                  "near zeros at negative arguments 1e-15 absolute.")
erfinv = _single("erfinv", "The y with erf(y) = x; within 2 ulp.")


def _polygamma(n: int, input: Tensor) -> Tensor:
    node = real_node("polygamma", input)
    if not isinstance(n, int):
        raise fail("polygamma", f"n is a whole number, not {n!r}", kind=TypeError)
    if n < 0:
        raise fail("polygamma", f"n is {n}", "Derivatives are counted from 0.")
    if n == 0:
        return wrap(graph.unary("digamma", node))
    series = graph.make("zeta", graph.like(n + 1, node), node)
    return wrap(graph.mul(series, (-1.0) ** (n + 1) * math.gamma(n + 1)))


@operation
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma."""
    return _polygamma(n, input)


METHODS["polygamma"] = operation(lambda self, n: _polygamma(n, self))


MOST_TERMS = 1 << 24
"""Of a sum whose length is an argument: a typing error should not run for hours."""


@method
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p."""
    node = real_node("mvlgamma", input)
    if p < 1:
        raise fail("mvlgamma", f"the dimension p is {p}", "It must be at least 1.")
    if whole_number(p) > MOST_TERMS:
        raise fail("mvlgamma", f"the dimension p is {p}, which means as many terms",
                   f"It may be at most {MOST_TERMS}.")
    spread = graph.broadcast(graph.unsqueeze(node, node.ndim), (*node.shape, p))
    less = graph.mul(graph.iota(node.ndim, spread.shape, node.dtype), 0.5)
    terms = graph.unary("lgamma", graph.sub(spread, less))
    total = graph.reduce("sum", terms, (node.ndim,))
    return wrap(graph.add(total, p * (p - 1) / 4 * math.log(math.pi)))


multigammaln = mvlgamma


@method
def igamma(input: Tensor, other: Tensor) -> Tensor:
    """The regularised lower incomplete gamma function of shape `input` at `other`; relative error
    1e-13, from shapes of 1e4 on 1e-12.  Differentiable in `other`.
    """
    return wrap(graph.make("gammainc", *operands("igamma", input, other)))


@method
def igammac(input: Tensor, other: Tensor) -> Tensor:
    """The regularised upper incomplete gamma function of shape `input` at `other`; errors as those
    of `igamma`.  Differentiable in `other`.
    """
    return wrap(graph.make("gammaincc", *operands("igammac", input, other)))


@operation
def zeta(input: Any, other: Any) -> Tensor:
    """The Hurwitz zeta function: the sum of (other + k)^-input over k >= 0; relative error 3e-15.
    Differentiable in `other`.
    """
    return wrap(graph.make("zeta", *operands("zeta", input, other)))


# ---- logarithms


def _times_log(name: str, op: str, lowest: float) -> Callable[..., Tensor]:
    """x * op(y), 0 where x is 0 and y is no NaN."""

    def apply(input: Any, other: Any) -> Tensor:
        from lazygrad.functional._operands import pair
        x, y = (floating(each) for each in pair(name, input, other))
        if x.dtype.is_complex:
            raise fail(name, f"is not defined for {x.dtype.name}", kind=TypeError)
        pole = graph.make("or", graph.binary("le", y, lowest), graph.binary("eq", y, math.inf))
        empty = graph.make("and", graph.binary("eq", x, 0), pole)
        logarithm = graph.unary(op, graph.where(empty, 1.0, y))
        return wrap(graph.where(empty, 0.0, graph.mul(x, logarithm)))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"input * {op}(other); 0 where input is 0, unless other is NaN."
    return apply


xlogy = method(_times_log("xlogy", "log", 0.0))
xlog1py = operation(_times_log("xlog1py", "log1p", -1.0))


@operation
def entr(input: Tensor) -> Tensor:
    """-x log(x); 0 at 0, -inf below."""
    x = real_node("entr", input)
    inside = graph.make("lt", graph.like(0, x), x)
    base = graph.where(graph.make("or", inside, graph.make("ne", x, x)), x, 1.0)
    value = graph.unary("neg", graph.mul(base, graph.unary("log", base)))
    below = graph.binary("lt", x, 0)
    return wrap(graph.where(below, -math.inf, graph.where(graph.binary("eq", x, 0), 0.0, value)))


@method
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)); `eps`: x is first clamped to eps..1 - eps."""
    x = floating(as_node("logit", input))
    if eps is not None:
        x = graph.where(graph.binary("lt", x, eps), eps, x)
        x = graph.where(graph.make("lt", graph.like(1 - eps, x), x), 1 - eps, x)
    return wrap(graph.unary("log", graph.div(x, graph.sub(graph.like(1, x), x))))


# ---- sinc and the spherical Bessel function


_SINC = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(9))


def sine_over(x: Node) -> Node:
    """sin(x) / x, below 1 by its series: smooth at 0."""
    near = graph.binary("lt", graph.unary("abs", graph.stop_gradient(x)), 1.0)
    inside = safe(near, x, 0.0)
    outside = graph.where(near, 1.0, x)
    series = polynomial(graph.mul(inside, inside), _SINC)
    return graph.where(near, series, graph.div(graph.unary("sin", outside), outside))


@method
def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), 1 at 0."""
    node = floating(as_node("sinc", input))
    if node.dtype.is_complex:
        zero = graph.binary("eq", node, 0)
        turned = graph.mul(graph.where(zero, 1, node), math.pi)
        return wrap(graph.where(zero, 1, graph.div(graph.unary("sin", turned), turned)))
    wide = graph.cast(node, dtypes.float32) if node.dtype.bits == 16 else node
    return wrap(graph.cast(sine_over(graph.mul(wide, math.pi)), node.dtype))


@public
def spherical_bessel_j0(x: Node) -> Node:
    """sin(x) / x; 0 at infinity."""
    infinite = graph.binary("eq", graph.unary("abs", x), math.inf)
    return graph.where(infinite, 0.0, sine_over(graph.where(infinite, 1.0, x)))


# ---- the normal distribution


ROOT_TWO = math.sqrt(2.0)


def erfcx_node(x: Node) -> Node:
    """exp(x²) erfc(x): of |x| by a polynomial in (|x| - 4) / (|x| + 4) (M. M. Shepherd and J. G.
    Laframboise, 1981).
    """
    size = graph.unary("abs", x)
    share = graph.div(graph.like(4, x), graph.add(size, 4))
    right = graph.mul(share, fitted("erfcx", graph.sub(graph.like(1, x), graph.mul(share, 2))))
    negative = graph.binary("lt", x, 0)
    left = safe(negative, x, 0.0)
    grown = graph.mul(graph.unary("exp", graph.mul(left, left)), 2)
    return graph.where(negative, graph.sub(grown, right), right)


@public
def erfcx(x: Node) -> Node:
    """exp(x²) erfc(x); relative error 1e-15, for negative x growing to 1e-13."""
    return erfcx_node(x)


@public
def ndtr(x: Node) -> Node:
    """The normal distribution function; relative error 1e-15, far to the left x² 1e-16."""
    return graph.mul(graph.unary("erfc", graph.mul(x, -1 / ROOT_TWO)), 0.5)


@public
def log_ndtr(x: Node) -> Node:
    """The logarithm of the normal distribution function; relative error 1e-15."""
    low = graph.binary("lt", x, -1)
    left = safe(low, x, -1.0)
    far = graph.sub(graph.unary("log", graph.mul(erfcx_node(graph.mul(left, -1 / ROOT_TWO)), 0.5)),
                    graph.mul(graph.mul(left, left), 0.5))
    right = graph.where(low, 1.0, x)
    near = graph.unary("log1p", graph.mul(graph.unary("erfc", graph.mul(right, 1 / ROOT_TWO)),
                                          -0.5))
    return graph.where(low, far, near)


def _erfinv_over(w: Node) -> Node:
    """erfinv(x) / x of w = -log(1 - x²), piece by piece."""
    root = graph.unary("sqrt", graph.where(graph.binary("lt", w, 3), 4.0, w))
    near = safe(graph.binary("lt", w, 3), w, 0.0)
    result = graph.add(graph.mul(near, fitted("erfinv", near)), math.sqrt(math.pi) / 2)
    for name, low, high in (("erfinv_middle", 3.0, 4.0), ("erfinv_far", 16.0, 9.0),
                            ("erfinv_farthest", 81.0, 28.0)):
        here = graph.make("le", graph.like(low, w), w)
        start = 2.0 if low == 3 else math.sqrt(low)
        inside = graph.make("and", here, graph.binary("le", root, high))
        piece = fitted(name, safe(inside, root, start))
        result = graph.where(here, piece if low == 3 else graph.mul(piece, root), result)
    return result


@public
def ndtri(p: Node) -> Node:
    """The x with ndtr(x) = p; relative error 1e-15, near p = 1/2 absolute."""
    legal = graph.make("and", graph.make("lt", graph.like(0, p), p), graph.binary("lt", p, 1))
    inside = safe(legal, p, 0.75)
    x = graph.sub(graph.mul(inside, 2), 1)
    central = graph.binary("lt", graph.unary("abs", graph.stop_gradient(x)), 0.5)
    middle = graph.where(central, x, 0.0)
    near = graph.unary("log1p", graph.unary("neg", graph.mul(middle, middle)))
    outer = graph.where(central, 0.25, inside)
    far = graph.add(graph.add(graph.unary("log", outer),
                              graph.unary("log1p", graph.unary("neg", outer))), math.log(4.0))
    w = graph.unary("neg", graph.where(central, near, far))
    value = graph.mul(graph.mul(x, ROOT_TWO), _erfinv_over(w))
    ends = graph.where(graph.binary("eq", p, 0), -math.inf, graph.where(
        graph.binary("eq", p, 1), math.inf, graph.like(math.nan, p)))
    return graph.where(legal, value, ends)


# ---- orthogonal polynomials


MOST_STEPS = 1 << 20
"""Of the recurrence; degrees in tensors above it give NaN."""


def _orthogonal(name: str, op: str, shifted: bool = False) -> Callable[..., Tensor]:
    def apply(input: Any, n: Any) -> Tensor:
        if isinstance(n, (int, float)) and n > MOST_STEPS:
            raise fail(name, f"a degree of {n}, which is as many steps",
                       f"It is at most {MOST_STEPS}.")
        x, degree = operands(name, input, n)
        if shifted:
            x = graph.sub(graph.mul(x, 2), 1)
        return wrap(graph.make(op, x, degree))

    apply.__name__ = apply.__qualname__ = name
    about = name.replace("_", " ")
    apply.__doc__ = (f"The {about} of degree n at `input`, by the three-term recurrence: 0 for n "
                     "below 0, NaN above 2**20.  Differentiable in `input`.")
    return operation(apply)


chebyshev_polynomial_t = _orthogonal("chebyshev_polynomial_t", "chebyshev_t")
chebyshev_polynomial_u = _orthogonal("chebyshev_polynomial_u", "chebyshev_u")
chebyshev_polynomial_v = _orthogonal("chebyshev_polynomial_v", "chebyshev_v")
chebyshev_polynomial_w = _orthogonal("chebyshev_polynomial_w", "chebyshev_w")
shifted_chebyshev_polynomial_t = _orthogonal("shifted_chebyshev_polynomial_t", "chebyshev_t", True)
shifted_chebyshev_polynomial_u = _orthogonal("shifted_chebyshev_polynomial_u", "chebyshev_u", True)
shifted_chebyshev_polynomial_v = _orthogonal("shifted_chebyshev_polynomial_v", "chebyshev_v", True)
shifted_chebyshev_polynomial_w = _orthogonal("shifted_chebyshev_polynomial_w", "chebyshev_w", True)
hermite_polynomial_h = _orthogonal("hermite_polynomial_h", "hermite_h")
hermite_polynomial_he = _orthogonal("hermite_polynomial_he", "hermite_he")
laguerre_polynomial_l = _orthogonal("laguerre_polynomial_l", "laguerre")
legendre_polynomial_p = _orthogonal("legendre_polynomial_p", "legendre")

TOP_LEVEL = ["lgamma", "digamma", "erfinv", "polygamma", "mvlgamma", "igamma", "igammac", "xlogy",
             "logit", "sinc"]
"""What stands in `lazygrad` itself; all of it stands in `lazygrad.special`."""

__all__ = list(TOP_LEVEL)

"""Tools for special functions written as a few nodes: double precision inside, fitted polynomials.

A function of nodes is decorated by `public`: integers become the default float, the formula is
computed in float64, and the result is rounded to the dtype.  So one set of polynomials serves all
dtypes, and errors in float32 are those of the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node, floating, pair
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.llvm.special_coefficients import INTERVALS, POLYNOMIALS

__all__ = ["fitted", "operands", "polynomial", "public", "real_node", "safe"]


def polynomial(x: Node, coefficients: tuple[float, ...]) -> Node:
    """One node for a polynomial, lowest order first."""
    return graph.make("polynomial", x, attrs=(coefficients,))


def fitted(name: str, x: Node) -> Node:
    """A fitted polynomial at x, which must lie in its interval."""
    low, high = INTERVALS[name]
    t = graph.mul(x, 2.0 / (high - low))
    if low != -high:
        t = graph.sub(t, (low + high) / (high - low))
    return polynomial(t, POLYNOMIALS[name])


def safe(condition: Node, x: Node, harmless: float) -> Node:
    """x where the condition holds, else a number at which nothing overflows: what is not chosen in
    the end must not disturb gradients either.
    """
    return graph.where(condition, x, harmless)


def real_node(name: str, value: Any) -> Node:
    """A tensor or number as a float node; TypeError for complex ones."""
    node = floating(as_node(name, value))
    if node.dtype.is_complex:
        raise fail(name, f"is not defined for {node.dtype.name}", kind=TypeError)
    return node


def operands(name: str, left: Any, right: Any) -> tuple[Node, Node]:
    """Two real float operands, promoted and broadcast."""
    a, b = (floating(each) for each in pair(name, left, right))
    if a.dtype.is_complex:
        raise fail(name, f"is not defined for {a.dtype.name}", kind=TypeError)
    return a, b


def public(compute: Callable[[Node], Node]) -> Callable[..., Tensor]:
    """The public function of a formula in float64."""

    def apply(input: Tensor) -> Tensor:
        node = real_node(compute.__name__, input)
        return wrap(graph.cast(compute(graph.cast(node, dtypes.float64)), node.dtype))

    apply.__name__ = apply.__qualname__ = compute.__name__
    apply.__doc__ = compute.__doc__
    return operation(apply)

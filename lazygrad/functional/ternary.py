"""Elementwise operations of more operands than two: bounds, choices, interpolation, sums with a
product; and whether two tensors are equal, or close.
"""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import METHODS, fail, method, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node, pair, result_dtype, several
from lazygrad.functional.elementwise import INPLACE
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node

__all__ = [
    "addcdiv", "addcmul", "allclose", "clamp", "clamp_max", "clamp_min", "clip", "equal", "isclose",
    "lerp", "masked_fill", "result_type", "where",
]


def clamp_node(node: Node, low: Any, high: Any) -> Node:
    """Between two bounds, each a node, a number or None; NaN stays."""
    if low is not None:
        node = graph.binary("maximum", node, low)
    if high is not None:
        node = graph.binary("minimum", node, high)
    return node


@method
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Values below `min` become min, above `max` max."""
    if min is None and max is None:
        raise fail("clamp", "needs min, max or both")
    node = as_node("clamp", input)
    dtype = result_dtype([value for value in (input, min, max) if value is not None])
    node = graph.cast(node, dtype)
    if node.differentiable:  # a NaN passes, its gradient does not
        node = graph.where(graph.make("ne", node, node), graph.stop_gradient(node), node)
    for name, bound in (("lt", min), ("gt", max)):
        if bound is None:
            continue
        limit = graph.const(bound, dtype, node.shape) if type(bound) in (int, float) \
            else graph.cast(as_node("clamp", bound), dtype)
        if not node.differentiable and not limit.differentiable:
            node = graph.binary("maximum" if name == "lt" else "minimum", node, limit)
            continue
        # a choice instead of an extremum: at the bound itself the gradient is that of the value
        outside = graph.binary("lt", node, limit) if name == "lt" else \
            graph.binary("lt", limit, node)
        if isinstance(bound, Tensor) or bound != bound:
            outside = graph.make("or", *graph.together("clamp", outside,
                                                       graph.make("ne", limit, limit)))
        node = graph.where(outside, limit, node)
    return wrap(node)


METHODS["clip"] = clip = clamp


@method
def clamp_min(input: Tensor, min: Any) -> Tensor:
    return clamp(input, min)


@method
def clamp_max(input: Tensor, max: Any) -> Tensor:
    return clamp(input, None, max)


@operation
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`; with the condition alone, its positions."""
    if input is None and other is None:
        from lazygrad.functional.masking import nonzero
        return nonzero(condition, as_tuple=True)
    dtype = result_dtype([input, other])
    yes, no = (graph.cast(as_node("where", value), dtype) for value in (input, other))
    return wrap(graph.where(graph.cast(as_node("where", condition), dtypes.bool_), yes, no))


METHODS["where"] = lambda self, condition, other: where(condition, self, other)


@method
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` where the mask holds."""
    node, hole = as_node("masked_fill", input), as_node("masked_fill", mask)
    if hole.dtype is not dtypes.bool_:
        raise fail(
            "masked_fill", f"the mask is {hole.dtype.name}", "Masks are bool: use mask.bool()."
        )
    fill = graph.cast(node_of(value), node.dtype) if isinstance(value, Tensor) \
        else graph.const(value, node.dtype)
    return wrap(graph.where(hole, fill, node))


@method
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight * (end - input), from whichever end is nearer: exact at weights 0 and 1."""
    start, stop, share = several("lerp", input, end, weight)
    gap = graph.sub(stop, start)
    if isinstance(weight, Tensor):
        size = graph.unary("abs", graph.stop_gradient(share))
        near = graph.binary("lt", size, 0.5)
        from_start = graph.add(start, graph.mul(share, gap))
        from_end = graph.sub(stop, graph.mul(gap, graph.sub(graph.like(1, share), share)))
        return wrap(graph.where(near, from_start, from_end))
    if -0.5 < abs(weight) < 0.5:
        return wrap(graph.add(start, graph.mul(gap, share)))
    return wrap(graph.sub(stop, graph.mul(gap, graph.like(1 - weight, gap))))


@method
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    base, left, right = several("addcmul", input, tensor1, tensor2)
    product = graph.mul(left, right)
    return wrap(graph.add(base, product if value == 1 else graph.mul(product, value)))


@method
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    base, left, right = several("addcdiv", input, tensor1, tensor2)
    quotient = graph.div(left, right)
    return wrap(graph.add(base, quotient if value == 1 else graph.mul(quotient, value)))


INPLACE += ["clamp", "clip", "clamp_min", "clamp_max", "masked_fill", "lerp", "addcmul", "addcdiv"]


@method
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
            equal_nan: bool = False) -> Tensor:
    """|input - other| <= atol + rtol * |other|, elementwise."""
    a, b = pair("isclose", input, other)
    same = graph.make("eq", a, b)
    if not a.dtype.is_differentiable:
        a, b = graph.cast(a, dtypes.float64), graph.cast(b, dtypes.float64)
    allowed = graph.add(graph.mul(graph.unary("abs", b), rtol), atol)
    near = graph.make("le", graph.unary("abs", graph.sub(a, b)), allowed)
    near = graph.make("and", near, graph.binary("lt", graph.unary("abs", b), math.inf))
    result = graph.make("or", same, near)
    if equal_nan:
        both = graph.make("and", graph.make("ne", a, a), graph.make("ne", b, b))
        result = graph.make("or", result, both)
    return wrap(result)


@method
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
             equal_nan: bool = False) -> bool:
    """Whether all elements are close; looks at the values."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


@method
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all values are equal; looks at the values."""
    for each in (input, other):
        if not isinstance(each, Tensor):
            as_node("equal", each)  # refuses what is no numbers
    return input.shape == other.shape and bool(METHODS["eq"](input, other).all())


@operation
def result_type(tensor1: Any, tensor2: Any) -> Any:
    """The dtype of an operation between the two."""
    return result_dtype([tensor1, tensor2])

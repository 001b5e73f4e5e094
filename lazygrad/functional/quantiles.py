"""Quantiles: values at fractions of the way through the order of an axis.

The rank of a fraction q among n values is q * (n - 1); between two values the result is
interpolated.  The ranks are selected, not the whole axis sorted, where there are few of them.
"""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, array_of, node_of, wrap
from lazygrad.functional._operands import as_node, axis_of
from lazygrad.functional._order import axis_last, count_nan, ranked_places, take_rows
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["quantile", "nanquantile"]

INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _fractions(name: str, q: Any, node: Node) -> Node:
    """The fractions as a node of the input's dtype, 0-d or with one axis; those known are checked.

    A fraction outside of 0..1 that is computed only later gives NaN.
    """
    if isinstance(q, Tensor):
        fractions = graph.stop_gradient(node_of(q))
        if fractions.dtype is not node.dtype:
            raise fail(name, f"q is {fractions.dtype.name} and the input {node.dtype.name}",
                       "Convert one with .to(...).")
        if fractions.ndim > 1:
            raise fail(name, f"q is a number or has one axis, not {listed(fractions.shape)}")
        known = array_of(q).ravel().tolist() if fractions.payload is not None else []
    else:
        if isinstance(q, bool) or not isinstance(q, (int, float)):
            raise fail(name, f"q is a number or a tensor, not {type(q).__name__}", kind=TypeError)
        fractions, known = graph.const(q, node.dtype), [q]
    for fraction in known:
        if not 0 <= fraction <= 1:
            raise fail(name, f"q is a fraction, and {float(fraction)} does not lie within 0..1")
    return fractions


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool,
              interpolation: str, skip_nan: bool) -> Tensor:
    node = as_node(name, input)
    if node.dtype not in (dtypes.float32, dtypes.float64):
        raise fail(name, f"takes float32 or float64, not {node.dtype.name}",
                   "Convert with .float() or .double().")
    if interpolation not in INTERPOLATIONS:
        raise fail(name, f"there is no interpolation {interpolation!r}",
                   f"It is one of {', '.join(INTERPOLATIONS)}.")
    fractions = _fractions(name, q, node)
    if not node.size:
        raise fail(name, f"of no elements is not defined: {listed(node.shape)}")
    axis = None if dim is None else axis_of(name, dim, node.ndim)
    rows = graph.reshape(node, (node.size,)) if axis is None or not node.ndim \
        else axis_last(node, axis)
    found = _between(rows, graph.reshape(fractions, (fractions.size,)), interpolation, skip_nan)
    kept = tuple(1 if axis is None or k == axis else size for k, size in enumerate(node.shape)
                 if keepdim or (axis is not None and k != axis))
    # the axis of the fractions comes first
    front = graph.permute(found, (rows.ndim - 1, *range(rows.ndim - 1)))
    return wrap(graph.reshape(front, (*fractions.shape, *kept)))


def _between(rows: Node, fractions: Node, interpolation: str, skip_nan: bool) -> Node:
    """(…, n) and (q,) -> (…, q): the values at these fractions of each row."""
    size, shape = rows.shape[-1], (*rows.shape[:-1], fractions.size)
    nans = graph.broadcast(count_nan(rows), shape)
    if skip_nan:
        last = graph.cast(graph.sub(graph.like(size - 1, nans), nans), rows.dtype)
        last = graph.binary("maximum", last, 0.0)
    else:
        last = graph.const(size - 1, rows.dtype, shape)
    ranks = graph.binary("mul", graph.broadcast(fractions, shape), last)
    if not skip_nan:  # the last of the row is a NaN if one is
        ranks = graph.where(graph.binary("lt", graph.like(0, nans), nans), float(size - 1), ranks)
    if interpolation in ("lower", "higher", "nearest"):
        rounding = {"lower": "floor", "higher": "ceil", "nearest": "round"}[interpolation]
        whole = graph.cast(graph.unary(rounding, ranks), dtypes.int64)
        result = take_rows(rows, ranked_places(rows, whole))
    else:
        below, above = graph.unary("floor", ranks), graph.unary("ceil", ranks)
        both = graph.concat([graph.cast(each, dtypes.int64) for each in (below, above)],
                            rows.ndim - 1)
        values = take_rows(rows, ranked_places(rows, both))
        low = graph.slice_axis(values, rows.ndim - 1, 0, fractions.size)
        high = graph.slice_axis(values, rows.ndim - 1, fractions.size, 2 * fractions.size)
        weight = graph.sub(ranks, below) if interpolation == "linear" else graph.like(0.5, ranks)
        result = _mixed(low, high, weight)
    if fractions.op == "const":
        return result
    inside = graph.make("and", graph.binary("le", graph.like(0, fractions), fractions),
                        graph.binary("le", fractions, 1))
    return graph.where(graph.broadcast(inside, shape), result, math.nan)


def _mixed(low: Node, high: Node, weight: Node) -> Node:
    """From the nearer of the two, as PyTorch's `lerp` does, so that both ends are exact."""
    difference = graph.sub(high, low)
    near_low = graph.add(low, graph.binary("mul", weight, difference))
    rest = graph.sub(graph.like(1, weight), weight)
    near_high = graph.sub(high, graph.binary("mul", difference, rest))
    return graph.where(graph.binary("lt", weight, 0.5), near_low, near_high)


@method
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """Values at fractions q (a number, or a tensor with one axis) of the order of an axis (of all).

    The result has the axis of q first, then those of the input without the reduced one.  NaN where
    a row holds one.  interpolation: linear, lower, higher, midpoint or nearest.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@method
def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """Like `quantile`, of the values that are not NaN; NaN where there is none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)

"""Sorting and running totals, made of comparisons and sums: quadratic in the axis, but fused.

The rank of an element is how many come before it, ties by position; NaN comes last.  There is no
sorting or scanning primitive yet, so long axes are slow.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node, axis_of
from lazygrad.functional.gathering import gather_along
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node

__all__ = ["sort", "argsort", "topk", "kthvalue", "median", "cumsum", "msort"]

sort_result = namedtuple("sort", ["values", "indices"])  # type: ignore[name-match]
topk_result = namedtuple("topk", ["values", "indices"])  # type: ignore[name-match]
kthvalue_result = namedtuple("kthvalue", ["values", "indices"])  # type: ignore[name-match]
median_result = namedtuple("median", ["values", "indices"])  # type: ignore[name-match]


def _pairs(node: Node, axis: int) -> tuple[Node, Node, Node, Node]:
    """Values and positions along the axis against those along a new last axis."""
    shape = (*node.shape, node.shape[axis])
    ours = graph.broadcast(graph.unsqueeze(node, node.ndim), shape)
    moved = graph.permute(node, [*(k for k in range(node.ndim) if k != axis), axis])
    theirs = graph.broadcast(graph.unsqueeze(moved, axis), shape)
    return ours, theirs, graph.iota(axis, shape), graph.iota(node.ndim, shape)


def _order(node: Node, axis: int, descending: bool) -> Node:
    """The positions of the elements in sorted order, along the axis."""
    node = graph.stop_gradient(node)
    ours, theirs, here, there = _pairs(node, axis)
    low, high = (ours, theirs) if descending else (theirs, ours)
    before = graph.make("lt", low, high)
    same = graph.make("eq", ours, theirs)
    if node.dtype.is_floating:
        nan_low, nan_high = graph.make("ne", low, low), graph.make("ne", high, high)
        before = graph.make("or", before, graph.make("and", graph.unary("not", nan_low), nan_high))
        same = graph.make("or", same, graph.make("and", nan_low, nan_high))
    tie = graph.make("and", same, graph.make("lt", there, here))
    ahead = graph.cast(graph.make("or", before, tie), dtypes.int64)
    rank = graph.reduce("sum", ahead, (node.ndim,))
    indices = [rank if k == axis else graph.iota(k, node.shape) for k in range(node.ndim)]
    return graph.make("scatter", graph.const(0, dtypes.int64, node.shape),
                      graph.iota(axis, node.shape), *indices,
                      attrs=(tuple(range(node.ndim)), "set"))


def _sorted(name: str, input: Tensor, dim: int, descending: bool) -> tuple[Node, Node, int]:
    node = as_node(name, input)
    axis = axis_of(name, dim, node.ndim)
    if not node.ndim:
        return node, graph.const(0, dtypes.int64), axis
    order = _order(node, axis, descending)
    return gather_along(node, axis, order), order, axis


@method
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Values in order along an axis, and where they were; equal ones keep their order."""
    values, order, _ = _sorted("sort", input, dim, descending)
    return sort_result(wrap(values), wrap(order))


@method
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Where the values in order are."""
    return wrap(_sorted("argsort", input, dim, descending)[1])


@method
def msort(input: Tensor) -> Tensor:
    return sort(input, 0)[0]


@method
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) along an axis, in order, and where they are."""
    values, order, axis = _sorted("topk", input, dim, largest)
    if not values.ndim:
        return topk_result(wrap(values), wrap(order))
    if not 0 <= k <= values.shape[axis]:
        raise fail("topk", f"k = {k} for an axis of size {values.shape[axis]}")
    return topk_result(*(wrap(graph.slice_axis(each, axis, 0, k)) for each in (values, order)))


@method
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest along an axis (from 1), and where it is."""
    values, order, axis = _sorted("kthvalue", input, dim, False)
    parts = [graph.slice_axis(each, axis, k - 1, k) for each in (values, order)]
    if not keepdim:
        shape = (*values.shape[:axis], *values.shape[axis + 1:])
        parts = [graph.reshape(part, shape) for part in parts]
    return kthvalue_result(*map(wrap, parts))


@method
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower middle of all values, or (values, indices) along an axis."""
    if dim is None:
        return kthvalue(input.flatten(), (input.numel() + 1) // 2)[0]
    size = input.shape[dim]
    return median_result(*kthvalue(input, (size + 1) // 2, dim, keepdim))


@method
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running totals along an axis; integers and bools as int64."""
    from lazygrad._core.types import as_dtype
    node = as_node("cumsum", input)
    if dtype is not None:
        node = graph.cast(node, as_dtype(dtype))
    elif not node.dtype.is_differentiable:
        node = graph.cast(node, dtypes.int64)
    if not node.ndim:
        return wrap(node)
    axis = axis_of("cumsum", dim, node.ndim)
    _, theirs, here, there = _pairs(node, axis)
    return wrap(graph.reduce("sum", graph.where(graph.make("le", there, here), theirs, 0),
                             (node.ndim,)))

"""Sorting, the k-th in order, and looking up in what is sorted.

Everywhere here NaN counts as the largest value, -0.0 equals 0.0, and equal elements keep their
order, whether `stable` is asked for or not.  The kernels are radix sorts, and selections that look
at each element a few times.  Gradients go to the elements that the values came from.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node, axis_of, result_dtype
from lazygrad.functional._order import (
    axis_back,
    axis_last,
    check_ordered,
    count_nan,
    is_nan,
    order_of,
    ordered,
    ordered_rows,
    ranked_places,
    run_starts,
    search,
    take_rows,
    top_places,
)
from lazygrad.functional.scans import scan_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["sort", "argsort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode",
           "searchsorted", "bucketize", "isin"]

sort_result = namedtuple("sort", ["values", "indices"])  # type: ignore[name-match]
topk_result = namedtuple("topk", ["values", "indices"])  # type: ignore[name-match]
kthvalue_result = namedtuple("kthvalue", ["values", "indices"])  # type: ignore[name-match]
median_result = namedtuple("median", ["values", "indices"])  # type: ignore[name-match]
nanmedian_result = namedtuple("nanmedian", ["values", "indices"])  # type: ignore[name-match]
mode_result = namedtuple("mode", ["values", "indices"])  # type: ignore[name-match]


def _operand(name: str, input: Any, dim: int) -> tuple[Node, int]:
    node = as_node(name, input)
    check_ordered(name, node)
    return node, axis_of(name, dim, node.ndim)


@method
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = False
         ) -> Any:
    """Values in order along an axis, and where they were; equal ones keep their order.

    Returns (values, indices): of the input's shape, the indices int64.  TypeError for complex.
    """
    node, axis = _operand("sort", input, dim)
    if not node.ndim:
        return sort_result(wrap(node), wrap(graph.const(0, dtypes.int64)))
    return sort_result(*map(wrap, ordered(node, axis, bool(descending))))


@method
def argsort(input: Tensor, dim: int = -1, descending: bool = False,
            stable: bool | None = False) -> Tensor:
    """Where the values in order along an axis are: int64, of the input's shape."""
    node, axis = _operand("argsort", input, dim)
    if not node.ndim:
        return wrap(graph.const(0, dtypes.int64))
    return wrap(order_of(node, axis, bool(descending)))


@method
def msort(input: Tensor) -> Tensor:
    """Values in order along the first axis."""
    node, axis = _operand("msort", input, 0)
    return wrap(ordered(node, axis)[0] if node.ndim else node)


@method
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) along an axis, in order, and where they are.

    Returns (values, indices), k long along the axis.  Of equal elements the first come first.  The
    time is linear in the size of the axis.  An error where k is not within 0..size.
    """
    node, axis = _operand("topk", input, dim)
    size = node.shape[axis] if node.ndim else 1
    k = _whole("topk", k)
    if not 0 <= k <= size:
        raise fail("topk", f"k = {k} does not lie within 0..{size}, the size of axis {axis} of "
                   f"{listed(node.shape)}", "Take a smaller k.")
    rows = axis_last(node, axis) if node.ndim else graph.reshape(node, (1,))
    places = top_places(rows, k, bool(largest))
    return topk_result(*(wrap(_shaped(part, node, axis, k))
                         for part in (take_rows(rows, places), places)))


def _shaped(rows: Node, node: Node, axis: int, size: int) -> Node:
    """Rows of a result brought back: the last axis to its place, none for a 0-d input."""
    if not node.ndim:
        return graph.reshape(rows, () if size == 1 else (size,))
    return axis_back(rows, axis)


def _whole(name: str, k: Any) -> int:
    try:
        return k.__index__()
    except AttributeError:
        raise fail(name, f"k is a whole number, not {type(k).__name__}", kind=TypeError) from None


def _reduced(rows: Node, places: Node, node: Node, axis: int, keepdim: bool) -> tuple[Node, Node]:
    """Values at one place of each row, and the places, in the shape of a reduction."""
    shape = tuple(
        1 if k == axis else size for k, size in enumerate(node.shape) if keepdim or k != axis
    )
    return graph.reshape(take_rows(rows, places), shape), graph.reshape(places, shape)


def _reducible(name: str, input: Any, dim: int) -> tuple[Node, int, Node]:
    """The operand, its axis (not empty), and its rows."""
    node, axis = _operand(name, input, dim)
    if not node.ndim:
        return node, axis, graph.reshape(node, (1,))
    if not node.shape[axis]:
        raise fail(name, f"axis {axis} of {listed(node.shape)} has no elements",
                   "Reduce an axis that has some.", IndexError)
    return node, axis, axis_last(node, axis)


@method
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest along an axis (from 1), and where it is: (values, indices).

    Of equal elements the first counts as the smaller.  An error where k is not within 1..size.
    """
    node, axis, rows = _reducible("kthvalue", input, dim)
    size, k = rows.shape[-1], _whole("kthvalue", k)
    if not 1 <= k <= size:
        raise fail("kthvalue", f"k = {k} does not lie within 1..{size}, the size of axis {axis} of "
                   f"{listed(node.shape)}", "The smallest value has k = 1.")
    ranks = graph.const(k - 1, dtypes.int64, (*rows.shape[:-1], 1))
    places = ranked_places(rows, ranks)
    return kthvalue_result(*map(wrap, _reduced(rows, places, node, axis, keepdim)))


def _median_places(rows: Node, skip_nan: bool) -> Node:
    """Where the lower middle of each row is; a NaN is the middle unless they are skipped."""
    size = rows.shape[-1]
    middle = graph.const((size - 1) // 2, dtypes.int64, (*rows.shape[:-1], 1))
    if rows.dtype.is_floating:
        nans = count_nan(rows)
        numbers = graph.sub(graph.like(size, nans), nans)
        if skip_nan:
            # of none but NaN the division gives 0: the first of them
            middle = graph.binary("idiv", graph.sub(numbers, 1), 2)
        else:
            middle = graph.where(graph.binary("lt", numbers, size), numbers, middle)
    return ranked_places(rows, middle)


def _median(name: str, result: Any, input: Any, dim: int | None, keepdim: bool,
            skip_nan: bool) -> Any:
    if dim is not None:
        node, axis, rows = _reducible(name, input, dim)
        parts = _reduced(rows, _median_places(rows, skip_nan), node, axis, keepdim)
        return result(*map(wrap, parts))
    node = as_node(name, input)
    check_ordered(name, node)
    if not node.size:
        if not node.dtype.is_floating:
            raise fail(name, f"of no elements is not defined for {node.dtype.name}")
        return wrap(graph.const(float("nan"), node.dtype))
    flat = graph.reshape(node, (node.size,))
    value = graph.reshape(take_rows(flat, _median_places(flat, skip_nan)), ())
    return wrap(_shared(flat, value) if node.differentiable else value)


def _shared(flat: Node, value: Node) -> Node:
    """The value, with its gradient shared evenly by all elements that equal it: the largest of
    them, since that is how gradients of the largest go.
    """
    value, fixed = graph.stop_gradient(value), graph.stop_gradient(flat)
    equal = graph.binary("eq", fixed, value)
    both = graph.make("and", is_nan(fixed), graph.broadcast(is_nan(value), flat.shape))
    chosen = graph.where(graph.make("or", equal, both), flat, flat.dtype.limits()[0])
    return graph.reduce("max", chosen, (0,))


@method
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower middle of all values, or (values, indices) along an axis; NaN if there is one."""
    return _median("median", median_result, input, dim, keepdim, False)


@method
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower middle of the values that are not NaN, or (values, indices) along an axis."""
    return _median("nanmedian", nanmedian_result, input, dim, keepdim, True)


@method
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The value that is most frequent along an axis, and its last position: (values, indices).

    Of several the smallest; NaNs differ from each other.
    """
    node, axis, rows = _reducible("mode", input, dim)
    values, order = ordered_rows(graph.stop_gradient(rows))
    last = rows.ndim - 1
    place = graph.iota(last, rows.shape)
    begins = graph.where(run_starts(values, last), place, 0)
    # the first place at which a run is as long as the longest: the end of that of least value
    so_far = graph.sub(place, scan_node(begins, last, "max"))
    places = take_rows(order, graph.reduce("argmax", so_far, (last,), True))
    return mode_result(*map(wrap, _reduced(rows, places, node, axis, keepdim)))


# ---- looking up


def _is_right(name: str, right: bool, side: str | None) -> bool:
    if side not in (None, "left", "right"):
        raise fail(name, f"side is 'left' or 'right', not {side!r}")
    if side == "left" and right:
        raise fail(name, "side='left' and right=True contradict each other", "Give one of them.")
    return right or side == "right"


@operation
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False,
                 right: bool = False, side: str | None = None,
                 sorter: Tensor | None = None) -> Tensor:
    """Where each value would have to be put into its sorted row to keep the row sorted.

    sorted_sequence: one row for all values, or rows with the same leading axes as `input`.  Before
    the elements that are equal, or after them with right=True.  sorter: the order of a sequence
    that is not sorted.  NaN goes behind everything.  int64 (int32), of the input's shape.
    """
    name = "searchsorted"
    rows = as_node(name, sorted_sequence)
    values = as_node(name, input)
    if not rows.ndim:
        raise fail(name, "the sorted sequence has no axis", "Give it at least one.")
    if sorter is not None:
        order = as_node(name, sorter)
        if order.dtype is not dtypes.int64 or order.shape != rows.shape:
            raise fail(name, f"the sorter is int64 of the sequence's shape {listed(rows.shape)}, "
                       f"not {order.dtype.name} {listed(order.shape)}", "Make it with argsort.")
        rows = take_rows(rows, order)
    dtype = result_dtype([rows, input if not isinstance(input, Tensor) else values])
    if rows.ndim > 1 and (values.ndim != rows.ndim or values.shape[:-1] != rows.shape[:-1]):
        raise fail(name, f"values {listed(values.shape)} do not fit sequences {listed(rows.shape)}",
                   "All axes but the last have to be the same, or the sequence one-dimensional.")
    check_ordered(name, graph.const(0, dtype))
    after = _is_right(name, right, side)
    places = search(graph.cast(rows, dtype), graph.cast(values, dtype), after)
    return wrap(graph.cast(places, dtypes.int32) if out_int32 else places)


@operation
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False,
              right: bool = False) -> Tensor:
    """The number of the bucket that each value lies in, between sorted boundaries.

    boundaries: one axis.  A value on a boundary belongs below it, or above it with right=True.
    """
    if as_node("bucketize", boundaries).ndim != 1:
        raise fail("bucketize", f"boundaries have one axis, not {listed(boundaries.shape)}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


FEW = 16
"""Elements to be looked for that are rather compared one by one."""


@operation
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False,
         invert: bool = False) -> Tensor:
    """bool of the elements' shape: whether each is among the others (invert: is not)."""
    dtype = result_dtype([elements, test_elements])
    node = graph.stop_gradient(graph.cast(as_node("isin", elements), dtype))
    others = graph.stop_gradient(graph.cast(as_node("isin", test_elements), dtype))
    others = graph.reshape(others, (others.size,))
    if not others.size:
        return wrap(graph.const(bool(invert), dtypes.bool_, node.shape))
    if others.size <= FEW or dtype.is_complex:
        pairs = graph.together("isin", graph.unsqueeze(node, node.ndim), others)
        found = graph.reduce("max", graph.make("eq", *pairs), (node.ndim,))
    else:
        listed_others = ordered_rows(others)[0]
        places = graph.binary("minimum", search(listed_others, node), others.size - 1)
        nearest = graph.make("gather", listed_others, places, attrs=((0,),))
        found = graph.make("eq", nearest, node)
    return wrap(graph.unary("not", found) if invert else found)

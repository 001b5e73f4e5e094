"""Distinct values: unique and unique_consecutive.

How many there are decides the shape, so these look at that one number: how many runs of equal
elements there are.  Sorting, comparing and collecting are programs like all else.
"""

from __future__ import annotations

from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node, axis_of
from lazygrad.functional._order import check_ordered, ordered_rows, run_starts, search
from lazygrad.functional.masking import places_of
from lazygrad.functional.scans import scan_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["unique", "unique_consecutive"]


def _gathered(node: Node, places: Node) -> Node:
    """Rows of the first axis."""
    return graph.make("gather", node, places, attrs=((0,),))


def _starts(values: Node) -> Node:
    """bool (count,): where an element, or a row of a matrix, differs from the one before."""
    differ = run_starts(values, 0)
    return graph.reduce("max", differ, range(1, values.ndim)) if values.ndim > 1 else differ


def _parts(values: Node, order: Node | None, shape: tuple[int, ...], inverse: bool,
           counts: bool) -> list[Node]:
    """Distinct values, where each element of the input is among them, and how often they occur.

    values: in the order in which equal ones are neighbours, along the first axis; order: where they
    were.  Looks at how many runs there are.
    """
    count = values.shape[0]
    if not count:
        empty = graph.const(0, dtypes.int64, (0,))
        return [values, *([graph.reshape(empty, shape)] if inverse else []),
                *([empty] if counts else [])]
    # alive while the runs are counted, so that the same program computes them
    kept, kept_order = wrap(values), None if order is None else wrap(order)
    first = places_of(_starts(values))
    values = node_of(kept)
    parts = [_gathered(values, first)]
    if inverse:
        runs = scan_node(graph.cast(_starts(values), dtypes.int64), 0, "add")
        numbers = graph.sub(runs, 1)
        if kept_order is not None:
            blank = graph.const(0, dtypes.int64, (count,))
            numbers = graph.make("scatter", blank, numbers, node_of(kept_order),
                                 attrs=((0,), "set"))
        parts.append(graph.reshape(numbers, shape))
    if counts:
        end = graph.const(count, dtypes.int64, (1,))
        after = graph.concat([graph.slice_axis(first, 0, 1, first.size), end], 0)
        parts.append(graph.sub(after, first))
    return parts


def _results(parts: list[Node]) -> Any:
    tensors = tuple(wrap(part) for part in parts)
    return tensors if len(tensors) > 1 else tensors[0]


def _row_order(rows: Node) -> Node:
    """The lexicographic order of the rows of a matrix.

    Numbers stand for values, column by column: how many in the column are smaller.  Pairs of
    neighbouring columns are combined into one, and numbered anew, until one is left.  So it takes
    log2(columns) rounds, each one sort of all columns at once.
    """
    columns = graph.permute(rows, (1, 0))
    count = rows.shape[0]
    while True:
        numbers = search(ordered_rows(columns)[0], columns)
        wide = numbers.shape[0]
        if wide == 1:
            return graph.make("argsort", graph.reshape(numbers, (count,)), attrs=(False,))
        even = wide // 2 * 2
        high = graph.make("slice", numbers, attrs=((0, 0), (even, count), (2, 1)))
        low = graph.make("slice", numbers, attrs=((1, 0), (even, count), (2, 1)))
        columns = graph.add(graph.mul(high, count + 1), low)
        if even < wide:
            rest = graph.slice_axis(numbers, 0, even, wide)
            columns = graph.concat([columns, rest], 0)


def _as_rows(name: str, node: Node, dim: int) -> tuple[Node, tuple[int, ...], int]:
    """The slices along an axis as rows of a matrix; the shape with that axis first; the axis."""
    axis = axis_of(name, dim, node.ndim)
    if not node.ndim:
        raise fail(name, "a 0-d tensor has no axis to compare slices along", "Leave out dim.")
    front = graph.permute(node, (axis, *(k for k in range(node.ndim) if k != axis)))
    if not node.size:
        if node.shape[axis]:
            raise fail(name, f"slices of {listed(node.shape)} along axis {axis} have no elements")
        return graph.reshape(front, (0, 0)), front.shape, axis
    return graph.reshape(front, (front.shape[0], node.size // front.shape[0])), front.shape, axis


def _rows_back(rows: Node, front: tuple[int, ...], axis: int) -> Node:
    back = graph.reshape(rows, (rows.shape[0], *front[1:]))
    return graph.permute(back, (*range(1, axis + 1), 0, *range(axis + 1, back.ndim)))


@method
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:
    """The distinct values in ascending order (dim: the distinct slices along an axis).

    return_inverse: also where each element is among them, of the input's shape (dim: one number a
    slice).  return_counts: also how often each occurs.  A NaN equals nothing, not even a NaN.
    Looks at how many there are.  No gradients.
    """
    node = graph.stop_gradient(as_node("unique", input))
    check_ordered("unique", node)
    if dim is None:
        flat = graph.reshape(node, (node.size,))
        values, order = ordered_rows(flat)
        return _results(_parts(values, order if return_inverse else None, node.shape,
                               return_inverse, return_counts))
    rows, front, axis = _as_rows("unique", node, dim)
    order = _row_order(rows) if rows.size else graph.const(0, dtypes.int64, (0,))
    parts = _parts(_gathered(rows, order), order, (rows.shape[0],), return_inverse, return_counts)
    return _results([_rows_back(parts[0], front, axis), *parts[1:]])


@method
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """The values without those that equal the one before (dim: slices along an axis).

    Results and options as of `unique`.
    """
    node = graph.stop_gradient(as_node("unique_consecutive", input))
    if dim is None:
        flat = graph.reshape(node, (node.size,))
        return _results(_parts(flat, None, node.shape, return_inverse, return_counts))
    rows, front, axis = _as_rows("unique_consecutive", node, dim)
    parts = _parts(rows, None, (rows.shape[0],), return_inverse, return_counts)
    return _results([_rows_back(parts[0], front, axis), *parts[1:]])

"""Nodes of what is built on order: rows sorted, ranks selected, positions found.

The ops of the IR work along the last axis, so each function here brings an axis there and back.
The order is stable; NaN is largest, and -0.0 equals 0.0.
"""

from __future__ import annotations

from lazygrad._core import graph
from lazygrad._core.context import fail
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node


def check_ordered(name: str, node: Node) -> None:
    """TypeError for complex numbers."""
    if node.dtype.is_complex:
        raise fail(name, f"{node.dtype.name} has no order", "Take x.abs() or x.real first.",
                   TypeError)


def axis_last(node: Node, axis: int) -> Node:
    """The axis moved behind the others."""
    return graph.permute(node, (*(k for k in range(node.ndim) if k != axis), axis))


def axis_back(node: Node, axis: int) -> Node:
    """The last axis moved to where it was."""
    last = node.ndim - 1
    return graph.permute(node, (*range(axis), last, *range(axis, last)))


def ordered_rows(rows: Node, descending: bool = False) -> tuple[Node, Node]:
    """Values in order along the last axis, and where they were: one kernel if both are used."""
    order = graph.make("argsort", graph.stop_gradient(rows), attrs=(descending,))
    return graph.make("sort_values", rows, order), order


def ordered(node: Node, axis: int, descending: bool = False) -> tuple[Node, Node]:
    """Values in order along an axis, and where they were."""
    values, order = ordered_rows(axis_last(node, axis), descending)
    return axis_back(values, axis), axis_back(order, axis)


def order_of(node: Node, axis: int, descending: bool = False) -> Node:
    """Where the values in order are."""
    rows = graph.stop_gradient(axis_last(node, axis))
    return axis_back(graph.make("argsort", rows, attrs=(descending,)), axis)


def take_rows(rows: Node, places: Node) -> Node:
    """Elements at places of the last axis; the other axes are the same."""
    others = [graph.iota(axis, places.shape) for axis in range(places.ndim - 1)]
    return graph.make("gather", rows, *others, places, attrs=(tuple(range(rows.ndim)),))


def top_places(rows: Node, k: int, largest: bool = True) -> Node:
    """Positions of the k largest (or smallest) of the last axis, in order; linear in its size."""
    return graph.make("top_k", graph.stop_gradient(rows), attrs=(k, largest))


def ranked_places(rows: Node, ranks: Node) -> Node:
    """Positions of the elements with the given ranks (from 0) in the order of the last axis."""
    return graph.make("select_rank", graph.stop_gradient(rows), ranks)


def search(rows: Node, values: Node, right: bool = False) -> Node:
    """How many elements of the sorted row (one for all, or one for each) are below each value;
    right: or equal to it.
    """
    rows, values = graph.stop_gradient(rows), graph.stop_gradient(values)
    return graph.make("searchsorted", rows, values, attrs=("right" if right else "left",))


def is_nan(node: Node) -> Node:
    return graph.make("ne", node, node)


def count_nan(rows: Node) -> Node:
    """How many NaNs each row of the last axis holds, the axis kept."""
    marks = graph.cast(is_nan(graph.stop_gradient(rows)), dtypes.int64)
    return graph.reduce("sum", marks, (rows.ndim - 1,), True)


def run_starts(values: Node, axis: int) -> Node:
    """bool: where an element differs from the one before it; true for the first of an axis."""
    size = values.shape[axis]
    differ = graph.make("ne", graph.slice_axis(values, axis, 1, size),
                        graph.slice_axis(values, axis, 0, size - 1))
    first = graph.const(True, dtypes.bool_, (*values.shape[:axis], 1, *values.shape[axis + 1 :]))
    return graph.concat([first, differ], axis)

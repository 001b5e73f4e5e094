"""Where values are not zero, and what a mask selects: results whose size depends on values.

Such an operation looks at the mask once, to learn how many places there are; the places themselves
are computed by kernels (the op `compact`), and gradients flow through the values selected.
"""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, method
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap, write
from lazygrad.functional._operands import as_node
from lazygrad.functional.scans import scan_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["argwhere", "masked_scatter", "masked_select", "nonzero",
           "nonzero_static"]


def places_of(mask: Node) -> Node:
    """int64 (count,): row-major positions at which a bool node holds.  Looks at the mask.

    The mask's value is kept from then on: computed again by another program, a comparison of
    rounded values could come out another way, and no longer fit the count.
    """
    kept = wrap(graph.reshape(graph.stop_gradient(mask), (mask.size,)))
    count = wrap(graph.reduce("sum", graph.cast(node_of(kept), dtypes.int64), (0,)))
    found = int(count.item())
    return graph.make("compact", node_of(kept), attrs=(found,))


def places_by_axis(mask: Node) -> list[Node]:
    """The positions at which a bool node holds, one int64 node for each axis."""
    rest = places_of(mask)
    if mask.ndim == 1:
        return [rest]
    result = []
    for axis, size in enumerate(mask.shape):
        stride = math.prod(mask.shape[axis + 1 :])
        place = graph.binary("idiv", rest, stride) if stride > 1 else rest
        result.append(graph.binary("rem", place, size) if axis and size else place)
    return result


def mask_node(name: str, mask: Any) -> Node:
    node = as_node(name, mask)
    if node.dtype is not dtypes.bool_:
        raise fail(name, f"a mask is bool, not {node.dtype.name}", "Compare, or use .bool().")
    return node


@method
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Positions of the values that are not zero, in row-major order; looks at the values.

    The result is int64 (count, ndim); with as_tuple, a tuple of vectors, one for each axis.
    """
    node = as_node("nonzero", input)
    holds = graph.cast(node, dtypes.bool_)
    if not node.ndim:
        places = places_of(holds)
        if as_tuple:
            return (wrap(places),)
        return wrap(graph.const(0, dtypes.int64, (places.size, 0)))
    columns = places_by_axis(holds)
    if as_tuple:
        return tuple(wrap(column) for column in columns)
    return wrap(graph.concat([graph.unsqueeze(column, 1) for column in columns], 1))


@method
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first `size` positions of `nonzero`, filled up with `fill_value`: int64 (size, ndim).

    Looks at nothing: the place of the k-th is found by bisection in the running count.
    """
    node = as_node("nonzero_static", input)
    if size < 0:
        raise fail("nonzero_static", f"size is {size}", "It is at least 0.")
    if not hasattr(fill_value, "__index__"):
        raise fail("nonzero_static", f"fill_value is a whole number, not {fill_value!r}",
                   kind=TypeError)
    if not node.ndim or not size or not node.size:
        return wrap(graph.const(fill_value, dtypes.int64, (size, node.ndim)))
    holds = graph.reshape(graph.cast(graph.stop_gradient(node), dtypes.bool_), (node.size,))
    count = scan_node(graph.cast(holds, dtypes.int64), 0, "add")
    wanted = graph.add(graph.iota(0, (size,)), 1)
    place = graph.make("searchsorted", count, wanted, attrs=("left",))
    there = graph.binary("lt", place, node.size)
    columns = []
    for axis, extent in enumerate(node.shape):
        part = graph.binary("idiv", place, math.prod(node.shape[axis + 1 :]))
        part = graph.binary("rem", part, extent)
        columns.append(graph.unsqueeze(graph.where(there, part, fill_value), 1))
    return wrap(graph.concat(columns, 1))


@method
def argwhere(input: Tensor) -> Tensor:
    """Positions of the values that are not zero, as rows; looks at the values."""
    return nonzero(input)


def rows_where(node: Node, mask: Node) -> Node:
    """The elements, or rows, of a node where a mask of its first axes holds."""
    rows = graph.reshape(node, (mask.size, *node.shape[mask.ndim :]))
    return graph.make("gather", rows, places_of(mask), attrs=((0,),))


@method
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask holds, in one axis; looks at the mask.  The two broadcast."""
    node, holds = as_node("masked_select", input), mask_node("masked_select", mask)
    node, holds = graph.together("masked_select", node, holds)
    return wrap(rows_where(node, holds))


def _with_source(name: str, input: Tensor, mask: Any, source: Any) -> Node:
    node, holds = as_node(name, input), mask_node(name, mask)
    values = as_node(name, source)
    if values.dtype is not node.dtype:
        raise fail(name, f"input is {node.dtype.name}, source {values.dtype.name}",
                   "Convert one with .to(...).")
    node, holds = graph.together(name, node, holds)
    if not node.size:
        return node
    count = scan_node(graph.cast(graph.reshape(holds, (holds.size,)), dtypes.int64), 0, "add")
    places = graph.where(holds, graph.reshape(graph.binary("sub", count, 1), holds.shape), 0)
    if not values.size:
        if bool(wrap(graph.reduce("max", holds, range(holds.ndim))).item()):
            raise fail(name, "source has no elements, and the mask holds somewhere")
        return node
    flat = graph.reshape(values, (values.size,))
    return graph.where(holds, graph.make("gather", flat, places, attrs=((0,),)), node)


@method
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements of `source`, in order, where the mask holds; the two broadcast.

    Too few elements are an IndexError once values are computed.
    """
    return wrap(_with_source("masked_scatter", input, mask, source))


@method
def masked_scatter_(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`masked_scatter`, written into this tensor."""
    node = _with_source("masked_scatter_", self, mask, source)
    if node.shape != shape_of(self):
        raise fail("masked_scatter_", f"the mask {listed(shape_of(mask))} does not broadcast to "
                   f"{listed(shape_of(self))}")
    return write(self, "masked_scatter_", node)
